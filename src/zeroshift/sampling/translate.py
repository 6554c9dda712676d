"""Translates real images into the domain of adapted generators."""

from collections.abc import Sequence

import torch
from torch import Tensor

from zeroshift.core.finite import require_finite_images
from zeroshift.generators.base import Generator
from zeroshift.generators.diffusion.mixing import mix_predictions
from zeroshift.io.downloads import cache_folder
from zeroshift.sampling.inversion import invert

__all__ = ["Translator"]


class Translator:
    """Translates real images into the domain of one or more adapted generators, fully or partially.

    The source inverts an image to a code, and a mixture of source and targets decodes it.

    Args:
        source: the generator that the targets were adapted from.
        targets, shares: see `zeroshift.generators.diffusion.mixing.mix_predictions`.
    Raises:
        ZeroshiftError: if the generators are not diffusion models, or differ in architecture or size.
    """

    def __init__(self, source: Generator, targets: Sequence[Generator], shares: Sequence[float]):
        self.source, self._mixed = source, mix_predictions(source, targets, shares)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """The translation of images [N, 3, resolution, resolution] in [-1, 1] on the CPU, in the same form.

        Raises:
            ZeroshiftError: if values of the codes or of the result are not finite numbers.
        """
        codes = invert(self.source, images, cache_folder() / "inversions")
        translated = self._mixed.synthesize(codes).float().cpu()
        require_finite_images(translated)
        return translated
