"""Rendered training images in files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import atomic_write

__all__ = ["cached_images", "to_float"]


def cached_images(path: Path, draw: Callable[[], Tensor]) -> NDArray[np.uint8]:
    """The uint8 images of a file, memory-mapped. If it is missing, it is written with `draw()`, images in [-1, 1].

    Raises:
        ZeroshiftError: if the file is damaged.
    """
    if not path.exists():
        pixels = ((draw() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, pixels)
    try:
        images: NDArray[np.uint8] = np.load(path, mmap_mode="r")
        damaged = images.dtype != np.uint8
    except Exception:  # NumPy raises many types for damaged files
        damaged = True
    if damaged:
        raise ZeroshiftError(f"{path} is damaged. Delete it, and it is made again.")
    return images


def to_float(pixels: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1
