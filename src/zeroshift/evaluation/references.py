"""Real images of the target domain, looked at once by each network for all runs."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from zeroshift.core.batching import Track
from zeroshift.io.images import eight_bit, find_images, read_image, square

__all__ = ["References"]

_AT_ONCE = 16


class References:
    """Real images of the target domain.

    Args:
        name: where they are from, for the record.
        images: files, or a tensor [N, 3, H, W] in [-1, 1].
    """

    def __init__(self, name: str, images: Sequence[Path] | Tensor):
        self.name, self._images = name, images
        self._kept: dict[tuple[str, int, int], Tensor] = {}

    @classmethod
    def from_folder(cls, folder: str | Path) -> "References":
        """All images in a folder and its folders.

        Raises:
            ZeroshiftError: if there are none, or it is a folder whose images are no set (see `find_images`).
        """
        return cls(str(folder), find_images(folder))

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, first: int, last: int, resolution: int) -> Tensor:
        """[last - first, 3, resolution, resolution]: the middle square of each, resampled without aliasing."""
        images = (each if isinstance(each, Tensor) else read_image(each) for each in self._images[first:last])
        return eight_bit(torch.stack([square(image, resolution) for image in images]))

    def seen_by(self, name: str, look: Callable[[Tensor], Tensor], count: int, resolution: int, track: Track) -> Tensor:
        """What the network `name` keeps of the first `count`, looked at once for all runs."""
        key = (name, count, resolution)
        if key not in self._kept:
            firsts = range(0, count, _AT_ONCE)
            parts = [
                look(self.batch(first, min(first + _AT_ONCE, count), resolution))
                for first in track(firsts, len(firsts), f"Reference images by {name}")
            ]
            self._kept[key] = torch.cat(parts)
        return self._kept[key]
