"""Pairs of inverted photos for data sets, see `sampling.pair_set`."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zeroshift.inversion.inverted import Inverted
from zeroshift.inversion.translate import Translator
from zeroshift.sampling.pair_set import Draw

__all__ = ["photo_pairs"]


def photo_pairs(translator: Translator, read: Callable[[range], Sequence[tuple[str, Inverted]]]) -> Draw:
    """Pairs of photos: the reconstruction by the source generator, and its translation, which fits it pixel by pixel.

    The record of a pair has the name of the photo and, for StyleGANs, its codes [num_ws * w_dim].

    Args:
        translator: draws the targets.
        read: gives the photos of some numbers, each with its name.
    """
    inverter = translator.inverter

    def draw(numbers: range) -> tuple[Tensor, Tensor, list[dict[str, Any]]]:
        sources, targets, records = [], [], []
        for name, inverted in read(numbers):
            targets.append(translator.draw(inverted)[0])  # checks that the photo belongs to the generator
            sources.append(inverter.reconstruct(inverted))
            record: dict[str, Any] = {"photo": name}
            if inverter.space is not None:  # those of diffusion models are as large as the image
                record["codes"] = inverted.codes.flatten().tolist()
            records.append(record)
        return torch.stack(sources), torch.stack(targets), records

    return draw
