"""The target domain of a run: its label, mixed with further texts and with example images (docs/methods.md).

A mixture moves the directions of every method by the same vector,

    d' = normalize(d + D - D_label),    D = normalize((1 - λ) D_texts + λ D_images),

where all D are unit directions from the source domain. A method with one direction, d = D_label, follows D itself. A
method with a direction for each image keeps what is specific to the image.
"""

import warnings
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.losses import normalize
from zeroshift.errors import ZeroshiftError
from zeroshift.io.image_files import ImageReader
from zeroshift.methods.context import TrainingContext

__all__ = ["TargetDomain"]

_SOURCE_SAMPLES = 64  # source images for the mean source feature, unless the run has an image bank
_BATCH = 8
# Distance of the example images from the source images, in standard errors. In the miniature world, other source images
# have 0.7 to 1.1, and one image of any of nine domains has at least 1.3.
MIN_EXAMPLE_ERRORS = 1.1
WEAK_EXAMPLE_ERRORS = 1.25


class TargetDomain:
    """Features and directions of a run's target domain, one per guidance encoder.

    Raises:
        ZeroshiftError: if an example image cannot be read, or the encoder does not tell the examples from source
            images.
    """

    def __init__(self, context: TrainingContext):
        self._context, config = context, context.config
        self._texts = config.weighted_texts
        self._has_images = bool(config.target_images) and config.image_weight > 0
        if self._has_images:
            self._check_examples()

    @property
    def mixed(self) -> bool:
        """Whether there is more than the label."""
        return len(self._texts) > 1 or self._texts[self._context.config.target] != 1 or self._has_images

    def features(self) -> list[Tensor]:
        """Feature [E] of the domain for the adaptive choice of layers.

        The feature of the label without a template, as in the published programs. A mixture averages unit features.
        """
        target, encoders = self._context.config.target, self._context.encoders
        if not self.mixed:
            return [encoder.encode_text([target])[0] for encoder in encoders]
        texts = [normalize(self._average(normalize(encoder.encode_text(list(self._texts))))) for encoder in encoders]
        if not self._has_images:
            return texts
        share = self._context.config.image_weight
        return [torch.lerp(text, image, share) for text, image in zip(texts, self._example_means, strict=True)]

    @torch.no_grad()
    def move(self, directions: Sequence[Tensor]) -> list[Tensor]:
        """Unit directions [n, E] to the label, moved to the mixture (see the module); unchanged without a mixture."""
        if not self.mixed:
            return list(directions)
        return [normalize(one + shift) for one, shift in zip(directions, self._shifts, strict=True)]

    @torch.no_grad()
    def move_features(self, sources: Sequence[Tensor], targets: Sequence[Tensor]) -> list[Tensor]:
        """Features [E] of the label as the end of a direction of the same length to the mixture."""
        if not self.mixed:
            return list(targets)
        lengths = [(target - source).norm() for source, target in zip(sources, targets, strict=True)]
        ways = [normalize(target - source)[None] for source, target in zip(sources, targets, strict=True)]
        moved = self.move(ways)
        return [source + length * way[0] for source, length, way in zip(sources, lengths, moved, strict=True)]

    @torch.no_grad()
    def example_shifts(self) -> list[Tensor]:
        """Shift [E] from the mean unit feature of source images to that of the example images; empty without them."""
        if not self._has_images:
            return []
        return self._example_shifts

    @cached_property
    def _example_shifts(self) -> list[Tensor]:
        return [
            target - parts.mean(dim=0) for target, parts in zip(self._example_means, self._source_features, strict=True)
        ]

    @cached_property
    def _shifts(self) -> list[Tensor]:
        """D - D_label, [E]."""
        config, shifts = self._context.config, []
        images = self._image_directions if self._has_images else [None] * len(self._context.encoders)
        for encoder, image in zip(self._context.encoders, images, strict=True):
            source = encoder.label_feature(config.source)
            ways = torch.stack([normalize(encoder.label_feature(text) - source) for text in self._texts])
            goal = normalize(self._average(ways))
            if image is not None:
                goal = normalize(torch.lerp(goal, image, config.image_weight))
            shifts.append(goal - ways[0])
        return shifts

    def _average(self, rows: Tensor) -> Tensor:
        """The weighted mean [E] of one row [E] per text."""
        weights = torch.tensor(list(self._texts.values()), dtype=rows.dtype, device=rows.device)
        return weights @ rows / weights.sum()

    @property
    def _image_directions(self) -> list[Tensor]:
        """From source images to the example images, [E]: NADA, section 4.1 ("few-shot")."""
        return [normalize(shift) for shift in self._example_shifts]

    @cached_property
    def _example_means(self) -> list[Tensor]:
        """Mean unit feature [E] of the example images."""
        context = self._context
        with ImageReader() as reader:
            images = [reader.read(path).to(context.distributed.device) for path in context.config.target_images]

        def mean(encoder: Encoder) -> Tensor:
            return normalize(torch.cat([encoder.encode_image(image[None]) for image in images])).mean(dim=0)

        with torch.no_grad():
            return [mean(encoder) for encoder in context.encoders]

    @cached_property
    def _source_features(self) -> list[Tensor]:
        """Unit features [N, E] of source images without random noise: the image bank, or 64 samples."""
        context, bank = self._context, self._context.image_bank
        if bank is not None:
            return [normalize(features) for features in bank.bank_features]
        parts: list[list[Tensor]] = [[] for _ in context.encoders]
        with torch.no_grad():
            for first in range(0, _SOURCE_SAMPLES, _BATCH):
                batch = context.fresh_latents.draw("source images", 0, range(first, first + _BATCH))
                images = context.source.synthesize(batch.codes)
                for features, encoder in zip(parts, context.encoders, strict=True):
                    features.append(normalize(encoder.encode_image(images)))
        return [torch.cat(features) for features in parts]

    def _check_examples(self) -> None:
        """Compares the distance of the example images from the source images with the scatter of the latter.

        The mean of k samples of the source lies about one standard error from the mean of the others.
        """
        number = len(self._context.config.target_images)
        for target, features in zip(self._example_means, self._source_features, strict=True):
            source, count = features.mean(dim=0), len(features)
            scatter = (features - source).square().sum() / max(1, count - 1)
            error = float((scatter * (1 / count + 1 / number)).sqrt())
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
