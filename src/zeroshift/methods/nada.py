"""NADA: one fixed direction for all images, from the labels or from example images (Gal et al., 2022)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.losses import normalize
from zeroshift.config.settings import AdaptConfig, MethodOptions
from zeroshift.errors import ZeroshiftError
from zeroshift.io.image_files import ImageReader
from zeroshift.methods.base import Method
from zeroshift.methods.context import TrainingContext

__all__ = ["NADA", "FixedDirection", "NADAOptions"]

_SOURCE_SAMPLES = 64  # images of G_s for the mean source feature, if the target has example images
_BATCH = 8
# Distance of the example images from the source images, in standard errors. In the miniature world, other source images
# have 0.7 to 1.1, and one image of any of nine domains has at least 1.3.
MIN_EXAMPLE_ERRORS = 1.1
WEAK_EXAMPLE_ERRORS = 1.25


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

    def __init__(self, context: TrainingContext):
        super().__init__(context)
        if self.options.target_images:
            self._check_examples()

    @classmethod
    def reads_labels(cls, config: AdaptConfig) -> bool:
        """Unless there are example images."""
        return not getattr(config.options, "target_images", ())

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

    @cached_property
    def _source_features(self) -> list[list[Tensor]]:
        """Unit features of source images without random noise, per encoder and batch [_BATCH, E]."""
        context = self.context
        features: list[list[Tensor]] = [[] for _ in context.encoders]
        for first in range(0, _SOURCE_SAMPLES, _BATCH):
            batch = context.source_images.draw("source images", 0, range(first, first + _BATCH))
            images = context.source.synthesize(batch.codes)
            for parts, encoder in zip(features, context.encoders, strict=True):
                parts.append(normalize(encoder.encode_image(images)))
        return features

    def _source_means(self) -> list[Tensor]:
        """Mean unit feature [E] of source images, one per encoder."""
        zero = torch.zeros(())
        return [sum((part.sum(dim=0) for part in parts), zero) / _SOURCE_SAMPLES for parts in self._source_features]

    def _check_examples(self) -> None:
        """Compares the distance of the example images from the source images with the scatter of the latter.

        The mean of k samples of the source lies about one standard error from the mean of the others.
        """
        with torch.no_grad():
            for source, target, parts in zip(self._source_means(), self.targets, self._source_features, strict=True):
                number = len(self.options.target_images)
                scatter = (torch.cat(parts) - source).square().sum() / (_SOURCE_SAMPLES - 1)
                error = float((scatter * (1 / _SOURCE_SAMPLES + 1 / number)).sqrt())
                length = float((target - source).norm())
                _judge_examples(length, length / error if error else float("inf") if length else 0.0, number)


def _judge_examples(length: float, errors: float, number: int) -> None:
    """Warns of a weak direction from source images to `number` example images, and refuses one that is noise."""
    measured = (
        f"the direction to the {number} example images is {length:.3f} long, {errors:.2f} standard errors of images of "
        "the source generator"
    )
    if not errors >= MIN_EXAMPLE_ERRORS:
        raise ZeroshiftError(
            f"The encoder does not tell the example images (--target-images) from source images: {measured}, as far as "
            "source images lie apart by chance. Choose images of the new domain."
        )
    if errors < WEAK_EXAMPLE_ERRORS:
        warnings.warn(
            f"The example images (--target-images) are hardly different from source images: {measured}. Add more "
            "images of the new domain.",
            stacklevel=2,
        )
