"""Translates real images into the domain of adapted generators."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zeroshift.core.finite import require_finite_images
from zeroshift.generators.base import Generator
from zeroshift.inversion.inverted import Inverted, render
from zeroshift.inversion.inverter import InversionProgress, Inverter

__all__ = ["Translator"]


class Translator:
    """Translates real images into the domain of one or more adapted generators, fully or partially.

    The source generator inverts an image; a mixture of source and targets (`Generator.mixed`) draws it from the codes,
    with the changes of weights that the inversion found.

    Args:
        inverter: inverts photos into the source generator.
        targets: generators that were adapted from it.
        shares: one number per target; 0 is the source, 1 the target.
    Raises:
        ZeroshiftError: if the generators differ in architecture or size.
    """

    def __init__(self, inverter: Inverter, targets: Sequence[Generator], shares: Sequence[float]):
        self.inverter = inverter
        self._mixed = inverter.generator.mixed(targets, shares)

    def __call__(self, images: Tensor, progress: Callable[[InversionProgress], None] = lambda progress: None) -> Tensor:
        """The translation of images [N, 3, resolution, resolution] in [-1, 1] on the CPU, in the same form.

        Args:
            progress: called during the inversion.
        Raises:
            ZeroshiftError: if values of the codes or of the result are not finite numbers.
        """
        return torch.cat([self.draw(inverted) for inverted in self.inverter(images, progress)])

    @torch.no_grad()
    def draw(self, inverted: Inverted) -> Tensor:
        """An inverted photo in the domain of the mixture: [1, 3, R, R] on the CPU.

        Raises:
            ZeroshiftError: if it belongs to another generator, or values of the result are not finite numbers.
        """
        inverted.require_generator(self.inverter.identity)
        inverted = inverted.to(self._mixed.device)
        translated = render(self._mixed, inverted.codes[None], inverted.changes).float().cpu()
        require_finite_images(translated)
        return translated
