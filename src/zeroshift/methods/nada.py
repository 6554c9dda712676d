"""NADA: one fixed direction for all images, from the labels or from example images (Gal et al., 2022)."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.losses import normalize
from zeroshift.io.images import read_image
from zeroshift.methods.base import Method

__all__ = ["METHOD", "NADA"]

_SOURCE_SAMPLES = 64  # images of G_s whose mean feature stands for the source domain beside example images
_AT_ONCE = 8


class NADA(Method):
    """StyleGAN-NADA."""

    def text_directions(self, mapper_inputs: Sequence[Tensor], step: int) -> list[Tensor]:
        """The same [1, E] at every step: NADA, equation 2 (ΔT), or section 4.1 ("few-shot") for example images."""
        return self._directions

    def target_features(self) -> list[Tensor]:
        """The label's feature, or the mean unit feature of the example images."""
        if not self.context.config.target_images:
            return super().target_features()
        return [normalize(features).mean(dim=0) for features in self._example_features]

    @cached_property
    def _directions(self) -> list[Tensor]:
        encoders, config = self.context.encoders, self.context.config
        with torch.no_grad():
            if config.target_images:
                ends = list(zip(self._source_means(), self.targets, strict=True))
            else:
                ends = [
                    (encoder.label_feature(config.source), encoder.label_feature(config.target)) for encoder in encoders
                ]
            return [normalize(target - source)[None] for source, target in ends]

    @cached_property
    def _example_features(self) -> list[Tensor]:
        images = [read_image(path).to(self.context.distributed.device) for path in self.context.config.target_images]

        def features(encoder: Encoder) -> Tensor:
            return torch.cat([encoder.encode_image(image[None]) for image in images])

        with torch.no_grad():
            return [features(encoder) for encoder in self.context.encoders]

    def _source_means(self) -> list[Tensor]:
        context = self.context
        sums: list[Tensor | float] = [0.0 for _ in context.encoders]
        for first in range(0, _SOURCE_SAMPLES, _AT_ONCE):
            samples = range(first, first + _AT_ONCE)
            codes = context.codes(context.latents("source images", 0, samples), context.labels(_AT_ONCE))
            images = context.source.synthesize(codes)
            for index, encoder in enumerate(context.encoders):
                sums[index] = sums[index] + normalize(encoder.encode_image(images)).sum(dim=0)
        return [torch.as_tensor(total) / _SOURCE_SAMPLES for total in sums]


METHOD = NADA
