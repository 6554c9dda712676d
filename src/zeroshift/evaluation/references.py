"""Real images of the target domain, and their features, which are computed once for all runs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroshift.config.settings import AdaptConfig
from zeroshift.core.batching import Track
from zeroshift.evaluation.feature_rows import FeatureRows
from zeroshift.evaluation.truth import load_truth
from zeroshift.generators.checkpoints.catalogue import find_entry
from zeroshift.io.image_files import ImageReader, find_images
from zeroshift.io.images import eight_bit, square

__all__ = ["References"]

_BATCH = 16
_NUM = 1000  # default number of true images, unless the caller or the generator's entry has one


class References:
    """Real images of the target domain.

    Args:
        name: their origin, for the record.
        images: files, or images [3, H, W] in [-1, 1], such as a tensor [N, 3, H, W].
    """

    def __init__(self, name: str, images: Sequence[Path] | Sequence[Tensor] | Tensor):
        self.name, self._images = name, images
        self._features: dict[tuple[str, int, int], Tensor] = {}
        self._reader = ImageReader()

    @classmethod
    def from_folder(cls, folder: str | Path) -> "References":
        """All images in a folder and its subfolders.

        Raises:
            ZeroshiftError: if there are none, or the folder holds images of several kinds (see `find_images`).
        """
        return cls(str(folder), find_images(folder))

    @classmethod
    def from_truth(cls, config: AdaptConfig, num: int | None, seed: int) -> "References | None":
        """True target images for latents other than those of the evaluated samples; None if the truth is unknown.

        Args:
            config: the settings of the run.
            num, seed: those of `evaluate`.
        """
        entry = find_entry(config.generator)
        truth = load_truth(entry)
        if entry is None or truth is None:
            return None
        images = truth.references(config.target, num or entry.num_samples or _NUM, seed)
        return None if images is None else cls("truth", images)

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, first: int, last: int, resolution: int) -> Tensor:
        """Images [last - first, 3, resolution, resolution]: central squares, resampled with antialiasing."""
        images = (each if isinstance(each, Tensor) else self._reader.read(each) for each in self._images[first:last])
        return eight_bit(torch.stack([square(image, resolution) for image in images]))

    def features(
        self, network: str, extract: Callable[[Tensor], Tensor], num: int, resolution: int, track: Track[Any]
    ) -> Tensor:
        """Features [num, ...] of the first `num` images; cached.

        Args:
            network: name of the network.
            extract: maps images [N, 3, resolution, resolution] to its features [N, ...].
            num, resolution: of the images.
            track: progress callback.
        """
        key = (network, num, resolution)
        if key not in self._features:
            firsts = range(0, num, _BATCH)
            rows = FeatureRows()
            for first in track(firsts, len(firsts), f"Reference images by {network}"):
                rows.add(extract(self.batch(first, min(first + _BATCH, num), resolution)))
            self._features[key] = rows.tensor()
            self._reader.say()
        return self._features[key]
