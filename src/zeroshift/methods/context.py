"""The training context of a method and its stages: configuration, frozen source, encoders, source images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.config.settings import AdaptConfig
from zeroshift.core.distributed import Distributed
from zeroshift.generators.base import Generator
from zeroshift.methods.source_images import FreshLatents, ImageBank, SharedImages, SourceImages, noise_seed

__all__ = ["TrainingContext"]


@dataclass(frozen=True)
class TrainingContext:
    """Everything that a run's method and stages share.

    Attributes:
        config: the settings.
        source: the source generator, frozen.
        encoders: the guidance encoders, frozen.
        distributed: the processes of the run.
        image_bank: the images to draw from; None: new latents at every step.
        shared_images: the batches that runs in lockstep share; None: the run is alone.
    """

    config: AdaptConfig
    source: Generator
    encoders: Sequence[Encoder]
    distributed: Distributed
    image_bank: ImageBank | None = None
    shared_images: SharedImages | None = None

    @cached_property
    def fresh_latents(self) -> FreshLatents:
        """New latents at every step."""
        config = self.config
        return FreshLatents(self.source, self.encoders, config.seed, self.labels, config.adapt.noise_mode)

    @property
    def source_images(self) -> SourceImages:
        """The provider of the run's source images."""
        return self.shared_images or self.image_bank or self.fresh_latents

    @property
    def mapper_input_dims(self) -> list[int]:
        """Width of a sample's mapper input for each encoder."""
        return [self.source.mapper_input_dim or encoder.embed_dim for encoder in self.encoders]

    def noise_seed(self, purpose: str, step: int) -> int:
        """Seed for `Generator.synthesize`, unique to the purpose and step."""
        return noise_seed(self.config.seed, purpose, step)

    def labels(self, count: int) -> Tensor | None:
        """Class labels [count] for a class-conditional generator, else None."""
        index = self.config.class_index
        return None if index is None else torch.full((count,), index, device=self.distributed.device)

    def autocast(self) -> torch.autocast:
        """Autocast context for the configured precision."""
        return torch.autocast(self.distributed.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")
