"""NADA: one fixed direction for all images, from the labels or from example images (Gal et al., 2022)."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from zeroshift.clip.losses import normalize
from zeroshift.config.settings import AdaptConfig
from zeroshift.methods.base import Method

__all__ = ["NADA", "FixedDirection"]


class FixedDirection(Method):
    """One direction from the source label to the target label: NADA, equation 2 (ΔT)."""

    @classmethod
    def reads_labels(cls, config: AdaptConfig) -> bool:
        """Unless example images alone define the direction."""
        return not (config.target_images and config.image_weight == 1)

    def text_directions(self, mapper_inputs: Sequence[Tensor], step: int) -> list[Tensor]:
        """The same [1, E] at every step, one per encoder."""
        return self._directions

    @cached_property
    def _directions(self) -> list[Tensor]:
        with torch.no_grad():
            return [normalize(target - source)[None] for source, target in self.domain_features()]

    def domain_features(self) -> list[tuple[Tensor, Tensor]]:
        """Features [E] of the source and target label, one pair per encoder."""
        config = self.context.config
        return [
            (encoder.label_feature(config.source), encoder.label_feature(config.target))
            for encoder in self.context.encoders
        ]


class NADA(FixedDirection):
    """StyleGAN-NADA."""
