"""Brings real images into the domain of adapted generators."""

from collections.abc import Sequence

import torch
from torch import Tensor

from zeroshift.generators.base import Generator
from zeroshift.generators.diffusion.mixing import mix_predictions
from zeroshift.io.downloads import cache_folder
from zeroshift.sampling.inversion import invert

__all__ = ["Translator"]


class Translator:
    """Brings real images into the domain of one or more adapted generators, or a part of the way.

    Args:
        source: the generator they were adapted from, which inverts.
        targets, shares: see `generators.diffusion.mix_predictions`.
    Raises:
        ZeroshiftError: if the generators are no diffusion models, or not of one kind.
    """

    def __init__(self, source: Generator, targets: Sequence[Generator], shares: Sequence[float]):
        self.source, self._mixed = source, mix_predictions(source, targets, shares)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Images [N, 3, resolution, resolution] in [-1, 1], on the CPU -> the same."""
        codes = invert(self.source, images, cache_folder() / "inversions")
        return self._mixed.synthesize(codes).float().cpu()
