"""The interface of feature networks, and where their weights are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeroshift.clip.weights import read_weights
from zeroshift.errors import ZeroshiftError
from zeroshift.io.downloads import cache_folder, download

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "FeatureNetwork",
    "Weights",
    "cosine_embedding",
    "read_weights",
    "require_timm",
]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def cosine_embedding(features: Tensor) -> Tensor:
    """Scales features [N, E] so that the squared Euclidean distance of two rows is 1 - cos."""
    return F.normalize(features, dim=-1) / 2**0.5


class FeatureNetwork(nn.Module):
    """A frozen network whose features are used by measures.

    `forward` maps images [N, 3, R, R] in [-1, 1], rounded to 8-bit levels, to features [N, ...]. These are computed
    once per image and kept for all measures: in memory, or in a temporary file if they have more than 16 KiB an image.
    """

    provides: frozenset[str]
    """What measures can ask for.

    "features": vectors [N, E]; "classes": `classify` works; "texts": `encode_labels` works; "maps": mean and covariance
    root of a feature map, [N, 1 + K, D]; "edges": edge maps [N, H, W] in [0, 1]; "perceptual": `embed` is a perceptual
    distance.
    """

    @property
    def device(self) -> torch.device:
        """The device of the weights; the CPU for a network without any."""
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    def embed(self, features: Tensor) -> Tensor:
        """Vectors [N, D] of features [N, ...]; their squared distance is the distance between the images."""
        return cosine_embedding(features)

    def classify(self, features: Tensor) -> Tensor:
        """Logits [N, classes] of features [N, ...]; only if `provides` has "classes"."""
        raise NotImplementedError(f"{type(self).__name__} has no classes")

    def encode_labels(self, labels: Sequence[str]) -> Tensor:
        """Text features [len(labels), E] of domain labels, on the CPU; only if `provides` has "texts"."""
        raise NotImplementedError(f"{type(self).__name__} has no text encoder")


@dataclass(frozen=True)
class Weights:
    """A published file of weights."""

    file: str
    address: str
    sha256: str = ""
    """The SHA-256 or its first digits; empty if unknown."""

    def find(self, path: str = "") -> Path:
        """`path`, or the file in the cache, downloaded from its authors if it is missing.

        Raises:
            ZeroshiftError: if the download fails; the message says where to place the file.
        """
        if path:
            return Path(path)
        target = cache_folder() / "features" / self.file
        try:
            return download(self.address, target, sha256=self.sha256)
        except ZeroshiftError as error:
            raise ZeroshiftError(f"{error} You can also place the file at {target}.") from error


def require_timm() -> Any:
    """The package timm.

    Raises:
        ZeroshiftError: if it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise ZeroshiftError("This network needs the package timm: pip install 'zeroshift[metrics]'.") from error
    return timm
