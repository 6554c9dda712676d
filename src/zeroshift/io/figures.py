"""A labelled row of images."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Figure"]


@dataclass(frozen=True)
class Figure:
    """A row of equally large pictures with what they show."""

    label: str
    note: str
    images: Tensor  # [N, C, H, W] in [-1, 1]
