"""Enlarges finished pictures for slides and papers."""

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from zeroshift.errors import ZeroshiftError

__all__ = ["Resample", "Scale"]

Resample = Literal["auto", "nearest", "lanczos"]

MAX_SIDE = 16383
"""Largest side of a scaled image, the limit of WebP."""

_FILTERS = {"nearest": Image.Resampling.NEAREST, "lanczos": Image.Resampling.LANCZOS}
_TEXT = re.compile(r"([1-9][0-9]{0,4})(px)?")


@dataclass(frozen=True)
class Scale:
    """The size of pictures that are written, relative to the images of the generator or absolute.

    Attributes:
        number: a factor, or a height in pixels.
        absolute: whether it is a height.
        resample: "nearest" repeats pixels, "lanczos" is smooth. "auto" repeats pixels if both sides grow by the same
            whole factor, which shows exactly what the generator drew, and is smooth otherwise.
    """

    number: int = 1
    absolute: bool = False
    resample: Resample = "auto"

    @classmethod
    def parse(cls, text: str | int, resample: Resample = "auto") -> "Scale":
        """A scale from a whole factor such as 4 or "4", or a height such as "1024px".

        Raises:
            ZeroshiftError: for other texts, or another filter.
        """
        match = _TEXT.fullmatch(str(text))
        if match is None:
            raise ZeroshiftError(
                f"The scale is {str(text)!r}; it must be a whole factor, such as 4, or a height, such as 1024px."
            )
        if resample not in ("auto", *_FILTERS):
            raise ZeroshiftError(f"The filter is {resample!r}; it must be auto, {' or '.join(_FILTERS)}.")
        return cls(int(match[1]), match[2] is not None, resample)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image of this height and width after scaling.

        Raises:
            ZeroshiftError: if a side would be too long.
        """
        factor = self.number / height if self.absolute else self.number
        scaled = round(height * factor), max(1, round(width * factor))
        if max(scaled) > MAX_SIDE:
            raise ZeroshiftError(
                f"An image of {width} x {height} pixels would get {scaled[1]} x {scaled[0]}; at most {MAX_SIDE} a side "
                "are written. Use a smaller scale."
            )
        return scaled

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Scales uint8 pixels [H, W, 3] or [N, H, W, 3]."""
        if pixels.ndim == 4:
            return np.stack([self(one) for one in pixels])
        height, width = pixels.shape[:2]
        scaled = self.size(height, width)
        if scaled == (height, width):
            return pixels
        image = Image.fromarray(pixels).resize(scaled[::-1], _FILTERS[self._filter(height, width)])
        return np.array(image)

    def note(self, height: int, width: int) -> str:
        """What was done to an image of this size, for the metadata of files; empty if nothing was."""
        scaled = self.size(height, width)
        if scaled == (height, width):
            return ""
        used = self._filter(height, width)
        return f"scaled from {width} x {height} to {scaled[1]} x {scaled[0]} pixels ({used})"

    def _filter(self, height: int, width: int) -> str:
        if self.resample != "auto":
            return self.resample
        tall, wide = self.size(height, width)
        return "nearest" if tall % height == 0 and tall * width == wide * height else "lanczos"
