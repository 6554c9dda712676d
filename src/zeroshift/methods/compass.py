"""Compass: a direction for each image, from captions and across the gap between texts and images (docs/compass.md).

The bridge of the encoder (`zeroshift.clip.bridge`) predicts from captions how the feature of an image moves to the
target domain. The pairs follow that shift, and the structure loss keeps their layout. No prompts are learned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.clip.bridge import LinearMap, load_bridge, packaged_bridge, shift_map
from zeroshift.clip.encoder import Encoder
from zeroshift.clip.losses import normalize
from zeroshift.config.schema import require
from zeroshift.config.settings import MethodOptions
from zeroshift.errors import ZeroshiftError
from zeroshift.methods.base import Pairs
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.structure import Structured, StructureOptions

__all__ = ["Compass", "CompassOptions"]


@dataclass(frozen=True)
class CompassOptions(StructureOptions):
    """Settings of Compass."""

    text_weight: float = 0.5
    """Weight of the direction between the labels (NADA's), relative to the predicted direction of an image."""
    people_weight: float = 0.0
    """Weight of the people loss; it compares the differences between target images with the predicted ones."""
    captions: int = 2000
    """Pairs of captions from which the shift is predicted."""
    bridges: tuple[str, ...] = ()
    """A file for each encoder, written by 'zeroshift bridge'; empty: those that the encoders ship."""

    def validate(self) -> None:
        """Checks the values.

        Raises:
            ZeroshiftError: naming the first setting with an invalid value.
        """
        super().validate()
        require(self.text_weight >= 0, f"text_weight is {self.text_weight}; it must be at least 0.")
        require(self.people_weight >= 0, f"people_weight is {self.people_weight}; it must be at least 0.")
        require(self.captions >= 100, f"captions is {self.captions}; it must be at least 100.")


class Compass(Structured):
    """A direction for each image from captions, with a structure loss that fades out."""

    Options: ClassVar[type[MethodOptions]] = CompassOptions
    needs_bridge = True
    curves: ClassVar[Mapping[str, str]] = {
        **Structured.curves,
        "people": "How much the differences between the target images differ from those that captions predict.",
    }

    def __init__(self, context: TrainingContext):
        super().__init__(context)
        files = self.options.bridges
        if files and len(files) != len(context.encoders):
            raise ZeroshiftError(
                f"bridges names {len(files)} files for {len(context.encoders)} encoders. Give one for each, in order."
            )
        self._labels = self._label_directions()  # raises for a label that is too long
        self._maps = [self._map(encoder, index) for index, encoder in enumerate(context.encoders)]

    def _map(self, encoder: Encoder, index: int) -> LinearMap:
        """The map of unit source features to shifts: the weighted mean over the texts of the target."""
        config, options = self.context.config, self.options
        name = config.encoders[index]
        bridge = load_bridge(Path(options.bridges[index])) if options.bridges else packaged_bridge(name)
        if bridge is None:
            raise ZeroshiftError(
                f"The encoder {name} ships no bridge from texts to images, which the method compass needs. Fit one to "
                f"captioned images with 'zeroshift bridge --encoder {name}' and name it with --bridges, or choose "
                "another method, such as scaffold."
            )
        bridge.require_encoder(encoder, name)
        texts = config.weighted_texts
        maps = [shift_map(bridge, encoder, config.source, text, options.captions) for text in texts]
        shares = [weight / sum(texts.values()) for weight in texts.values()]
        weight, bias = (
            torch.stack([share * part for share, part in zip(shares, parts, strict=True)]).sum(dim=0)
            for parts in zip(*maps, strict=True)
        )
        return LinearMap(weight, bias)

    @torch.no_grad()
    def shifts(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Predicted shifts [n, E] of images with the features [copies * n, E], one per encoder.

        The mean over the augmented copies. With example images, their shift takes its share of the way.
        """
        return [self._shift(self._mean_of_copies(rows), index) for index, rows in enumerate(features)]

    def _shift(self, features: Tensor, index: int) -> Tensor:
        """Predicted shifts [n, E] of features [n, E], the means over copies of unit features of an encoder."""
        shift = self._maps[index](features)
        examples = self.target_domain.example_shifts()
        if not examples:
            return shift
        return torch.lerp(shift, examples[index].expand_as(shift), self.context.config.image_weight)

    def _mean_of_copies(self, features: Tensor) -> Tensor:
        """The mean [n, E] over the augmented copies of unit features, from features [copies * n, E]."""
        copies = max(1, self.context.config.adapt.augmentations)
        mean: Tensor = normalize(features.float()).unflatten(0, (copies, -1)).mean(dim=0)
        return mean

    @property
    def needs_means(self) -> bool:
        """Also for the people loss, which compares with the mean image."""
        return bool(self.options.people_weight) or super().needs_means

    def extra_losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """The structure loss, and the weighted people loss: 1 - cos of how an image differs from the mean image.

        Mean over samples, weighted sum over encoders. The mean images are those of earlier steps; at the first step the
        loss is zero.
        """
        losses = super().extra_losses(pairs)
        if not self.options.people_weight:
            return losses
        terms = []
        for index, (source, target) in enumerate(zip(pairs.source_features, pairs.target_features, strict=True)):
            with torch.no_grad():
                mean_source, mean_target = self.means()[index]
                before = self._mean_of_copies(source)
                wanted = before + self._shift(before, index)
                wanted -= mean_source + self._shift(mean_source[None], index)
            own = self._mean_of_copies(target) - mean_target
            terms.append(self.context.config.weights[index] * (1 - F.cosine_similarity(own, wanted, dim=-1)).mean())
        started = float(pairs.step > 0)
        return {**losses, "people": self.options.people_weight * started * torch.stack(terms).sum()}

    def directions(self, features: Sequence[Tensor], mapper_inputs: Sequence[Tensor], step: int) -> list[Tensor]:
        """Unit directions [n, E]: the predicted shift's, and with `text_weight` the one between the labels."""
        weight: float = self.options.text_weight
        return [
            normalize(normalize(shift) + weight * text)
            for shift, text in zip(self.shifts(features), self._labels, strict=True)
        ]

    @torch.no_grad()
    def _label_directions(self) -> list[Tensor]:
        """Unit directions [1, E] from the source to the target label, moved to further texts and example images."""
        config = self.context.config
        ways = [
            normalize(encoder.label_feature(config.target) - encoder.label_feature(config.source))[None]
            for encoder in self.context.encoders
        ]
        return self.target_domain.move(ways)
