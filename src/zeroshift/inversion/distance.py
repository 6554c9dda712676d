"""Distances between a photo and its reconstruction, with gradients."""

import os
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.io.downloads import cache_folder
from zeroshift.networks.lpips import LPIPS, SIZE
from zeroshift.networks.registry import load_network

__all__ = ["Distance", "LPIPSDistance", "PyramidDistance", "load_distance"]

_SMALLEST = 8  # pixels of the coarsest level of the pyramid


class Distance(ABC):
    """A distance of images [N, 3, R, R] in [-1, 1] to fixed photos, one number per pair."""

    name: str
    perceptual: bool
    """Whether the thresholds of published programs, which are LPIPS values, have a meaning for it."""

    @abstractmethod
    def features(self, images: Tensor) -> Any:
        """What is compared."""

    @abstractmethod
    def between(self, features: Any, others: Any) -> Tensor:
        """Distances [N] of features to others."""


class LPIPSDistance(Distance):
    """LPIPS on VGG-16 (Zhang et al., 2018) at no more than 256 pixels, as in the projector of StyleGAN2."""

    name, perceptual = "lpips", True

    def __init__(self, network: LPIPS):
        self._network = network

    def features(self, images: Tensor) -> Tensor:
        """Vectors [N, D]; without the rounding to 8 bits of the measure, which has no gradient."""
        if images.shape[-1] > SIZE:
            from torchvision.transforms.v2.functional import InterpolationMode, resize  # takes seconds to import

            images = resize(images, [SIZE, SIZE], InterpolationMode.BILINEAR, antialias=True)
        return self._network.embed((images + 1) * 127.5)

    def between(self, features: Tensor, others: Tensor) -> Tensor:
        """Squared distances [N]."""
        return (features - others).square().sum(dim=1)


class PyramidDistance(Distance):
    """Mean squared difference of pixels, averaged over the levels of an image pyramid down to 8 pixels.

    It needs no network. Coarse levels give a gradient where details do not overlap yet.
    """

    name, perceptual = "pyramid", False

    def features(self, images: Tensor) -> list[Tensor]:
        """The levels, from fine to coarse."""
        levels = [images]
        while levels[-1].shape[-1] >= 2 * _SMALLEST:
            levels.append(F.avg_pool2d(levels[-1], 2))
        return levels

    def between(self, features: list[Tensor], others: list[Tensor]) -> Tensor:
        """Distances [N]."""
        parts = [(one - other).square().mean(dim=(1, 2, 3)) for one, other in zip(features, others, strict=True)]
        return torch.stack(parts).mean(dim=0)


def load_distance(name: str, device: torch.device | str = "cpu") -> Distance:
    """The distance "lpips" or "pyramid"; "auto" is LPIPS if its weights are on this machine.

    Raises:
        ZeroshiftError: an unknown name, or weights that cannot be downloaded.
    """
    if name == "auto":
        name = "lpips" if _lpips_is_here() else "pyramid"
    if name == "pyramid":
        return PyramidDistance()
    if name != "lpips":
        raise ZeroshiftError(f"There is no distance {name!r}. Choose lpips or pyramid.")
    network = load_network("lpips", device)
    assert isinstance(network, LPIPS)
    return LPIPSDistance(network)


@lru_cache(maxsize=1)
def _lpips_is_here() -> bool:
    import importlib.util

    return os.path.exists(cache_folder() / "features" / LPIPS.WEIGHTS.file) and bool(importlib.util.find_spec("lpips"))
