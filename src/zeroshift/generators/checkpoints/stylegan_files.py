"""Reads StyleGAN generators from the files of other programs: pickles and files of torch.save."""

import contextlib
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints import nvidia, rosinality
from zeroshift.generators.checkpoints.signatures import part_of_model
from zeroshift.generators.checkpoints.torch_data import Content, SafetensorsContent, open_pickle, open_torch
from zeroshift.generators.checkpoints.weights import SavedGenerator, contents, find_generators
from zeroshift.io.foreign import first_line

__all__ = ["load_pkl", "load_pt", "load_safetensors", "read_pkl", "reading"]

_SUPPORTED = (
    "zeroshift reads StyleGAN2 (skip architecture) and StyleGAN3 of NVIDIA's programs, StyleGAN2 of rosinality's, and "
    "their forks that kept the names of the weights"
)


def load_pkl(path: str | Path) -> Generator:
    """The generator in a pickle of NVIDIA's programs or their forks, in evaluation mode on the CPU.

    It is the moving average (`G_ema`), or with a warning `G` if that is missing.

    Raises:
        ZeroshiftError: a missing, damaged, suspicious or unsupported file, or a generator that is neither a StyleGAN2
            (skip architecture) nor a StyleGAN3.
    """
    with reading(path):
        return _generator(open_pickle(path), path)


def load_pt(path: str | Path) -> Generator:
    """The generator in a file of torch.save, in evaluation mode on the CPU: the moving average if there is one.

    Raises:
        ZeroshiftError: as `load_pkl`.
    """
    with reading(path):
        return _generator(open_torch(path), path)


def load_safetensors(file: Any, path: str | Path) -> Generator:
    """The generator in an open safetensors file of another program, in evaluation mode on the CPU.

    Raises:
        ZeroshiftError: as `load_pkl`.
    """
    with reading(path):
        content = SafetensorsContent(file, path)
        if not _found(content, path):
            raise ZeroshiftError(
                part_of_model(path)
                or f"{path} was not written by zeroshift: its metadata does not describe a generator, and it holds no "
                "weights of a StyleGAN2 under the names of NVIDIA's or rosinality's program."
            )
        return _generator(content, path)


def read_pkl(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Parameters and buffers of the generator in an NVIDIA .pkl by name, and its settings (`nvidia_weights`).

    Raises:
        ZeroshiftError: as `load_pkl`.
    """
    with reading(path):
        content = open_pickle(path)
        return nvidia.nvidia_weights(_saved(content, path), content)


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turns the exceptions of reading a damaged or hostile file into a sentence."""
    try:
        yield
    except (ZeroshiftError, Warning):
        raise
    except OSError as error:
        raise ZeroshiftError(f"{path} cannot be read: {error.strerror or first_line(error)}.") from error
    except Exception as error:  # a damaged file can raise nearly anything
        found = "its end is missing or damaged" if isinstance(error, zipfile.BadZipFile) else first_line(error)
        raise ZeroshiftError(
            f"{path} is damaged or not a generator file: {found}. Compare its size with that of the original."
        ) from error


def _generator(content: Content, path: str | Path) -> Generator:
    saved = _saved(content, path)
    try:
        if any(anchor in saved.values for anchor in rosinality.ANCHORS):
            return rosinality.rosinality_generator(saved, content)
        return nvidia.nvidia_generator(saved, content)
    except ZeroshiftError as error:
        raise ZeroshiftError(f"The generator in {path} cannot be used: {error}") from error


def _found(content: Content, path: str | Path) -> list[SavedGenerator]:
    """The generators of any of the programs in a file."""
    anchors = (*nvidia.ANCHORS, *rosinality.ANCHORS)
    return [one for anchor in anchors for one in find_generators(content, anchor, path)]


def _saved(content: Content, path: str | Path) -> SavedGenerator:
    """The best generator in a file."""
    saved = _found(content, path)
    if not saved:
        if any(name.startswith(("dnnlib.tflib", "tfutil", "tflib", "tensorflow")) for name in content.names):
            raise ZeroshiftError(
                f"{path} is a TensorFlow pickle of the first StyleGAN programs, which zeroshift does not read. "
                "Use the PyTorch file of the same model (see `zeroshift models`), or convert it with `python legacy.py "
                "--source=... --dest=...` of stylegan2-ada-pytorch or stylegan3. Nothing in it was executed."
            )
        raise ZeroshiftError(
            f"{path} holds no StyleGAN2 or StyleGAN3 generator, but {contents(content)}. {_SUPPORTED}."
        )
    best = next((one for one in saved if one.is_average), saved[0])
    if best.prefix == "G.":
        warnings.warn(f"{path} has no G_ema, the averaged generator; using G.", stacklevel=4)
    return best
