"""Rendered training images in files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zeroshift.io.atomic import atomic_write

__all__ = ["cached_images", "to_float"]


def cached_images(path: Path, draw: Callable[[], Tensor]) -> NDArray[np.uint8]:
    """The uint8 images of a file, memory-mapped. If it is missing, it is written with `draw()`, images in [-1, 1]."""
    if not path.exists():
        pixels = ((draw() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, pixels)
    images: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return images


def to_float(pixels: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1
