"""NADA: one fixed direction for all images, from the labels or from example images (Gal et al., 2022)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.losses import normalize
from zeroshift.config.settings import MethodOptions
from zeroshift.io.image_files import ImageReader
from zeroshift.methods.base import Method

__all__ = ["NADA", "FixedDirection", "NADAOptions"]

_SOURCE_SAMPLES = 64  # images of G_s for the mean source feature, if the target has example images
_BATCH = 8


class FixedDirection(Method):
    """One direction from the source label to the target label: NADA, equation 2 (ΔT)."""

    def text_directions(self, mapper_inputs: Sequence[Tensor], step: int) -> list[Tensor]:
        """The same [1, E] at every step, one per encoder."""
        return self._directions

    @cached_property
    def _directions(self) -> list[Tensor]:
        with torch.no_grad():
            return [normalize(target - source)[None] for source, target in self.domain_features()]

    def domain_features(self) -> list[tuple[Tensor, Tensor]]:
        """Features [E] of the source and target domain, one pair per encoder."""
        config = self.context.config
        return [
            (encoder.label_feature(config.source), encoder.label_feature(config.target))
            for encoder in self.context.encoders
        ]


@dataclass(frozen=True)
class NADAOptions(MethodOptions):
    """Settings of NADA."""

    target_images: tuple[str, ...] = ()
    """Example images of the new domain. They define the direction instead of the labels."""


class NADA(FixedDirection):
    """StyleGAN-NADA."""

    Options: ClassVar[type[MethodOptions]] = NADAOptions

    def target_features(self) -> list[Tensor]:
        """Feature of the target label, or mean unit feature of the example images."""
        if not self.options.target_images:
            return super().target_features()
        return [normalize(features).mean(dim=0) for features in self._example_features]

    def domain_features(self) -> list[tuple[Tensor, Tensor]]:
        """From the labels, or from samples of the source and example images: NADA, section 4.1 ("few-shot")."""
        if not self.options.target_images:
            return super().domain_features()
        return list(zip(self._source_means(), self.targets, strict=True))

    @cached_property
    def _example_features(self) -> list[Tensor]:
        with ImageReader() as reader:
            images = [reader.read(path).to(self.context.distributed.device) for path in self.options.target_images]

        def features(encoder: Encoder) -> Tensor:
            return torch.cat([encoder.encode_image(image[None]) for image in images])

        with torch.no_grad():
            return [features(encoder) for encoder in self.context.encoders]

    def _source_means(self) -> list[Tensor]:
        """Mean unit feature [E] of source images without random noise, one per encoder."""
        context = self.context
        sums: list[Tensor | float] = [0.0 for _ in context.encoders]
        for first in range(0, _SOURCE_SAMPLES, _BATCH):
            batch = context.source_images.draw("source images", 0, range(first, first + _BATCH))
            images = context.source.synthesize(batch.codes)
            for index, encoder in enumerate(context.encoders):
                sums[index] = sums[index] + normalize(encoder.encode_image(images)).sum(dim=0)
        return [torch.as_tensor(total) / _SOURCE_SAMPLES for total in sums]
