"""A labeled row of images for reports."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Figure"]


@dataclass(frozen=True)
class Figure:
    """A row of images of one size, with a label and a note on their origin."""

    label: str
    note: str
    images: Tensor  # [N, C, H, W] in [-1, 1]
