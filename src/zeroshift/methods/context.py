"""What a method and its stages work with: configuration, frozen source, encoders, latents."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.losses import normalize
from zeroshift.config.settings import AdaptConfig
from zeroshift.core.distributed import Distributed
from zeroshift.core.dtypes import at_least_float32
from zeroshift.core.rng import normal, stream
from zeroshift.generators.base import Codes, Generator, Latents
from zeroshift.methods.image_bank import ImageBank

__all__ = ["TrainingContext"]

_PIXELS = 2**18  # of the source images that are made at once; more would cost memory, and on a CPU time


@dataclass(frozen=True)
class TrainingContext:
    """What a run is made of, for methods to take what they need from."""

    config: AdaptConfig
    source: Generator  # frozen
    encoders: Sequence[Encoder]
    distributed: Distributed
    bank: ImageBank | None = None  # the images to draw from; None: new latents at every step

    def latents(self, purpose: str, step: int, samples: Sequence[int]) -> Latents:
        """Latents [n, *latent_shape]; each depends on the seed, the purpose, the step and its sample.

        With a bank, rows of it [n]. Either is for `codes`, `mapper_inputs` and the like to understand.
        """
        if self.bank is not None:
            batch = len(samples) * self.distributed.size
            return self.bank.draw(self.config.seed, purpose, step, samples, batch).to(self.distributed.device)
        drawn = normal(self.source.latent_shape, self.config.seed, purpose, step, samples=samples)
        return drawn.to(self.distributed.device)

    def codes(self, latents: Latents, labels: Tensor | None) -> Codes:
        """What the source decides of each sample."""
        return self.source.codes(latents, labels) if self.bank is None else self.bank.codes[latents]

    def source_images(self, latents: Latents, codes: Codes, purpose: str, step: int, samples: Sequence[int]) -> Tensor:
        """G_s of each sample, [n, 3, H, W]; or the bank's images."""
        if self.bank is not None:
            return self.bank.images[latents]
        noise, noise_seed = self.config.adapt.noise_mode, self.noise_seed(purpose, step)
        images = self.source.synthesize(codes, noise_mode=noise, noise_seed=noise_seed, samples=samples)
        return at_least_float32(images)

    def source_features(
        self, latents: Latents, codes: Codes, purpose: str, step: int, samples: Sequence[int]
    ) -> list[Tensor]:
        """Features [n, E] of the source images, one an encoder; without graph, so a few images at a time will do."""
        if self.bank is not None:
            return [features[latents] for features in self.bank.features]
        at_once = max(1, _PIXELS // self.source.resolution**2)
        parts = (part.split(at_once) for part in (latents, codes, torch.as_tensor(samples)))
        seen = []
        for some, their_codes, numbers in zip(*parts, strict=True):
            images = self.source_images(some, their_codes, purpose, step, numbers.tolist())
            seen.append([encoder.encode_image(images) for encoder in self.encoders])
        return [torch.cat(features) for features in zip(*seen, strict=True)]

    @property
    def mapper_input_dims(self) -> list[int]:
        """The width of a sample's context for each encoder."""
        return [self.source.mapper_input_dim or encoder.embed_dim for encoder in self.encoders]

    def mapper_inputs(
        self, latents: Latents, labels: Tensor | None, image_features: Callable[[], Sequence[Tensor]]
    ) -> list[Tensor]:
        """What a method sees of each sample, one [n, mapper_input_dims[i]] an encoder.

        The generator's own code, the same for all; where it has none, the encoder's unit feature of the source image.

        Args:
            image_features: gives the features [n, E] of the source images as they are, one an encoder.
        """
        if self.bank is None:
            code = self.source.mapper_input(latents, labels)
        else:
            code = None if self.bank.mapper_inputs is None else self.bank.mapper_inputs[latents]
        if code is not None:
            return [code] * len(self.encoders)
        return [normalize(features) for features in image_features()]

    def noise_seed(self, purpose: str, step: int) -> int:
        """For `Generator.synthesize`; a number that no other purpose and step have."""
        return stream(self.config.seed, "noise", purpose, step).initial_seed()

    def labels(self, count: int) -> Tensor | None:
        """The class of each of `count` samples, [count], for a class-conditional generator."""
        index = self.config.class_index
        return None if index is None else torch.full((count,), index, device=self.distributed.device)

    def autocast(self) -> torch.autocast:
        """Arithmetic of the networks in the precision asked for."""
        return torch.autocast(self.distributed.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")
