"""What a feature network is, and how its weights are found and read."""

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from zeroshift.errors import ZeroshiftError
from zeroshift.evaluation.metrics.diversity import cosine_embedding

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "FeatureNetwork", "Weights", "read_weights"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FeatureNetwork(nn.Module):
    """Frozen; maps images [N, 3, R, R] in [-1, 1], of 8-bit levels, to what is kept of them, [N, ...]."""

    provides: frozenset[
        str
    ]  # what a measure can ask for: "features", "classes", "texts", "maps", "edges", "perceptual"

    def embed(self, observed: Tensor) -> Tensor:
        """[N, D] of what `forward` gave: vectors whose squared distance is the distance between the images."""
        return cosine_embedding(observed)


@dataclass(frozen=True)
class Weights:
    """A published file of weights."""

    file: str
    address: str

    def find(self, given: str) -> Path:
        """`given`, or the file in the cache, fetched from its authors if it is not there.

        Raises:
            ZeroshiftError: if there is neither, saying where to put the file.
        """
        if given:
            return Path(given)
        from zeroshift.io.downloads import cache_folder, download

        target = cache_folder() / "features" / self.file
        try:
            return download(self.address, target)
        except ZeroshiftError as error:
            raise ZeroshiftError(f"{error} It is looked for at {target}.") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or PyTorch file, on the CPU.

    Raises:
        ZeroshiftError: if there is no such file, or it is damaged or holds more than plain data.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ZeroshiftError(f"There is no file of weights {path}. Check the path.") from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise ZeroshiftError(
            f"{path} cannot be read as a file of weights: it is damaged or of another kind."
        ) from error
