"""A method with its own settings and stage: directions start at the source images instead of the source label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from zeroshift.clip.losses import normalize
from zeroshift.config.schema import require
from zeroshift.config.settings import MethodOptions
from zeroshift.methods.base import Method, Stage
from zeroshift.methods.context import TrainingContext


@dataclass(frozen=True)
class WarmUpStage:
    """The warm-up stage, which estimates the center of the source images."""

    steps: int = 10
    """Steps."""
    batch_size: int = 4
    """Images per step, over all processes."""


@dataclass(frozen=True)
class FromImagesOptions(MethodOptions):
    """Settings of the example method."""

    warm_up: WarmUpStage = field(default_factory=WarmUpStage)

    def validate(self) -> None:
        """Checks the values."""
        require(self.warm_up.steps >= 1, f"warm_up.steps is {self.warm_up.steps}; it must be at least 1.")


class WarmUp(Stage):
    """Running mean of the features of source images, one per encoder."""

    name = "warm-up"
    title = "Estimating the center of the source images"

    def __init__(self, context: TrainingContext, settings: WarmUpStage):
        self._context, self._settings, self.steps = context, settings, settings.steps
        self.centers = [torch.zeros(encoder.embed_dim, device=encoder.device) for encoder in context.encoders]

    @torch.no_grad()
    def step(self, step: int) -> dict[str, Any]:
        """Adds the images of a step to the mean."""
        samples = self._context.distributed.share(range(self._settings.batch_size))
        batch = self._context.source_images.draw(self.name, step, samples)
        moved = 0.0
        for index, features in enumerate(batch.features):
            mean = self._context.distributed.gather(normalize(features)).mean(dim=0)
            change = (mean - self.centers[index]) / (step + 1)
            self.centers[index] = self.centers[index] + change
            moved += float(change.norm())
        return {"loss": moved}

    def state_dict(self) -> dict[str, Any]:
        """The centers."""
        return {"centers": self.centers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.centers = [center.to(self._context.distributed.device) for center in state["centers"]]


class FromImages(Method):
    """One direction, from the center of the source images to the target label."""

    Options = FromImagesOptions
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"miniature": {"adapt.steps": 20}}

    def __init__(self, context: TrainingContext):
        super().__init__(context)
        self._warm_up = WarmUp(context, self.options.warm_up)

    def stages(self) -> list[Stage]:
        """The warm-up stage."""
        return [self._warm_up]

    def text_directions(self, mapper_inputs: Sequence[Tensor], step: int) -> list[Tensor]:
        """[1, E], one per encoder."""
        labels = [encoder.label_feature(self.context.config.target) for encoder in self.context.encoders]
        return [normalize(label - center)[None] for label, center in zip(labels, self._warm_up.centers, strict=True)]
