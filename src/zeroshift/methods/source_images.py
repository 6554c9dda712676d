"""The source images of a run: new latents at every step, or a fixed image bank.

Both return batches (`SourceBatch`) that compute codes, images and features on first use. Runs in lockstep share them
(`SharedImages`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, cast

import torch
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.losses import normalize
from zeroshift.core.dtypes import at_least_float32
from zeroshift.core.rng import normal, stream
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Codes, Generator, Latents

__all__ = ["FreshLatents", "ImageBank", "SharedImages", "SourceBatch", "SourceImages", "noise_seed"]

T = TypeVar("T")
_PIXELS = 2**18  # source images encoded at once without a graph; more costs memory, and time on a CPU
_BANK_BATCH = 8


def noise_seed(seed: int, purpose: str, step: int) -> int:
    """Seed for `Generator.synthesize`, unique to the purpose and step."""
    return stream(seed, "noise", purpose, step).initial_seed()


class SourceBatch(ABC):
    """This process's source samples of one step.

    Attributes:
        samples: numbers of the n samples in the whole batch.
    """

    samples: Sequence[int]

    @property
    @abstractmethod
    def codes(self) -> Codes:
        """Codes [n, ...] of the source generator, not truncated."""

    @property
    @abstractmethod
    def images(self) -> Tensor:
        """Source images [n, 3, H, W], float32 around [-1, 1]."""

    @property
    @abstractmethod
    def features(self) -> list[Tensor]:
        """Features [n, E] of the source images, one per encoder."""

    @property
    @abstractmethod
    def mapper_inputs(self) -> list[Tensor]:
        """Inputs of the latent mapper, [n, mapper_input_dim], one per encoder.

        The generator's `mapper_input`, the same for all encoders; for a generator without one, the unit image feature.
        """

    @abstractmethod
    def _split(self, parts: int) -> "list[SourceBatch]":
        """`split`, not kept."""

    def split(self, parts: int) -> "list[SourceBatch]":
        """The batch in equal parts, for gradient accumulation; the same objects at every call."""
        return self.once(("split", parts), lambda: self._split(parts))

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The result of `compute`, which is kept with the batch, so that runs in lockstep compute it once.

        Args:
            key: everything that the result depends on, except the batch and what all of these runs share.
        """
        kept: dict[Hashable, object] = self.__dict__.setdefault("_kept", {})
        if key not in kept:
            kept[key] = compute()
        return cast(T, kept[key])


class SourceImages(ABC):
    """Source of the batches of a run."""

    @abstractmethod
    def draw(self, purpose: str, step: int, samples: Sequence[int], noise: str | None = None) -> SourceBatch:
        """The batch of `samples` at a step.

        A sample depends only on the seed, the purpose, the step and its number, not on the number of processes.

        Args:
            purpose: name of the batch's use; different purposes get different samples.
            noise: purpose of the noise inputs; None: `purpose`.
        """


class SharedImages(SourceImages):
    """Batches of runs in lockstep, which are computed once for all of them.

    Args:
        images: of the source generator that the runs share.
    """

    def __init__(self, images: SourceImages) -> None:
        self._images = images
        self._batches: dict[Hashable, SourceBatch] = {}

    def draw(self, purpose: str, step: int, samples: Sequence[int], noise: str | None = None) -> SourceBatch:
        """See `SourceImages.draw`. The same batch until `free`; nobody may change its tensors."""
        key = (purpose, step, tuple(samples), noise)
        if key not in self._batches:
            self._batches[key] = self._images.draw(purpose, step, samples, noise)
        return self._batches[key]

    def free(self) -> None:
        """Forgets all batches, after a step of all runs."""
        self._batches.clear()


@dataclass(frozen=True)
class FreshLatents(SourceImages):
    """New latents at every step."""

    generator: Generator
    encoders: Sequence[Encoder]
    seed: int
    labels: Callable[[int], Tensor | None]  # number of samples -> class labels
    noise_mode: str = "const"

    def draw(self, purpose: str, step: int, samples: Sequence[int], noise: str | None = None) -> "FreshBatch":
        """Gaussian latents, see `SourceImages.draw`."""
        latents = normal(self.generator.latent_shape, self.seed, purpose, step, samples=samples)
        return self.batch(latents.to(self.generator.device), purpose if noise is None else noise, step, samples)

    def batch(self, latents: Latents, noise: str, step: int, samples: Sequence[int]) -> "FreshBatch":
        """The batch of given latents [n, *latent_shape]."""
        return FreshBatch(self, latents, samples, noise_seed(self.seed, noise, step))


@dataclass(frozen=True)
class FreshBatch(SourceBatch):
    """Samples from new latents."""

    origin: FreshLatents
    latents: Latents
    samples: Sequence[int]
    noise_seed: int

    @cached_property
    def labels(self) -> Tensor | None:
        """Class labels [n] for a class-conditional generator."""
        return self.origin.labels(len(self.latents))

    @cached_property
    def codes(self) -> Codes:
        """See `SourceBatch`."""
        return self.origin.generator.codes(self.latents, self.labels)

    @cached_property
    def images(self) -> Tensor:
        """See `SourceBatch`."""
        return self._images(self.codes, self.samples)

    @cached_property
    def features(self) -> list[Tensor]:
        """See `SourceBatch`; images are generated in small parts and not kept, unless `images` was read before."""
        encoders = self.origin.encoders
        if "images" in self.__dict__:
            return [encoder.encode_image(self.images) for encoder in encoders]
        size = max(1, _PIXELS // self.origin.generator.resolution**2)
        numbers = torch.as_tensor(self.samples).split(size)
        images = (
            self._images(codes, some.tolist()) for codes, some in zip(self.codes.split(size), numbers, strict=True)
        )
        parts = [[encoder.encode_image(some) for encoder in encoders] for some in images]
        return [torch.cat(features) for features in zip(*parts, strict=True)]

    @cached_property
    def mapper_inputs(self) -> list[Tensor]:
        """See `SourceBatch`."""
        common = self.origin.generator.mapper_input(self.latents, self.labels)
        return [normalize(one) for one in self.features] if common is None else [common] * len(self.origin.encoders)

    def _split(self, parts: int) -> list[SourceBatch]:
        size = len(self.latents) // parts
        return [
            FreshBatch(self.origin, latents, self.samples[first : first + size], self.noise_seed)
            for first, latents in zip(range(0, len(self.latents), size), self.latents.split(size), strict=True)
        ]

    def _images(self, codes: Codes, samples: Sequence[int]) -> Tensor:
        generator, mode = self.origin.generator, self.origin.noise_mode
        images = generator.synthesize(codes, noise_mode=mode, noise_seed=self.noise_seed, samples=samples)
        return at_least_float32(images)


@dataclass(frozen=True)
class ImageBank(SourceImages):
    """A fixed set of M source images; a run makes repeated passes over them.

    Codes, images and features are computed once.
    """

    bank_codes: Codes  # [M, ...]
    bank_mapper_inputs: Tensor | None  # [M, mapper_input_dim]; None: the generator has no such code
    bank_images: Tensor  # [M, 3, H, W]
    bank_features: list[Tensor]  # [M, E], one per encoder
    seed: int = 0
    num_processes: int = 1

    @classmethod
    @torch.no_grad()
    def of_latents(
        cls,
        generator: Generator,
        latents: Latents,
        labels: Tensor | None,
        encoders: Sequence[Encoder],
        seed: int = 0,
        num_processes: int = 1,
    ) -> "ImageBank":
        """The generator's images of latents [M, *latent_shape]."""
        codes, images, mapper_inputs = [], [], []
        for rows in torch.arange(len(latents)).split(_BANK_BATCH):
            some, classes = latents[rows], None if labels is None else labels[rows]
            codes.append(generator.codes(some, classes))
            images.append(at_least_float32(generator.synthesize(codes[-1])))
            mapper_input = generator.mapper_input(some, classes)
            if mapper_input is not None:
                mapper_inputs.append(mapper_input)
        whole = torch.cat(images)
        inputs = torch.cat(mapper_inputs) if mapper_inputs else None
        return cls(torch.cat(codes), inputs, whole, _features(whole, encoders), seed, num_processes)

    @classmethod
    @torch.no_grad()
    def of_images(
        cls,
        generator: Generator,
        images: Tensor,
        codes: Codes,
        encoders: Sequence[Encoder],
        seed: int = 0,
        num_processes: int = 1,
    ) -> "ImageBank":
        """Real images [M, 3, resolution, resolution] with their codes from inversion."""
        inputs = generator.inverted_mapper_input(codes)
        return cls(codes, inputs, images, _features(images, encoders), seed, num_processes)

    def draw(self, purpose: str, step: int, samples: Sequence[int], noise: str | None = None) -> "BankBatch":
        """Rows of the bank, see `SourceImages.draw`. A pass uses each image at most once.

        The last images of a pass are skipped if they do not fill a batch.

        Raises:
            ZeroshiftError: if the batch is larger than the bank.
        """
        rows = self.rows(purpose, step, samples, len(samples) * self.num_processes)
        return BankBatch(self, rows.to(self.bank_images.device), samples)

    def rows(self, purpose: str, step: int, samples: Sequence[int], batch_size: int) -> Tensor:
        """Rows [len(samples)] of the bank for some samples of a batch."""
        size = len(self.bank_codes)
        if batch_size > size:
            raise ZeroshiftError(
                f"A batch of {batch_size} needs as many different images, but the image bank has {size}. Enlarge it "
                "(--source-images-dir, --num-latents), or reduce the batch (--batch-size, --prompts.batch-size)."
            )
        number, place = divmod(step, size // batch_size)
        order = torch.randperm(size, generator=stream(self.seed, "bank", purpose, number))
        return order[[(place * batch_size + sample) % size for sample in samples]]


@dataclass(frozen=True)
class BankBatch(SourceBatch):
    """Samples from an image bank."""

    bank: ImageBank
    rows: Tensor  # [n]
    samples: Sequence[int]

    @property
    def codes(self) -> Codes:
        """See `SourceBatch`."""
        return self.bank.bank_codes[self.rows]

    @property
    def images(self) -> Tensor:
        """See `SourceBatch`."""
        return self.bank.bank_images[self.rows]

    @property
    def features(self) -> list[Tensor]:
        """See `SourceBatch`."""
        return [features[self.rows] for features in self.bank.bank_features]

    @property
    def mapper_inputs(self) -> list[Tensor]:
        """See `SourceBatch`."""
        inputs = self.bank.bank_mapper_inputs
        if inputs is None:
            return [normalize(features) for features in self.features]
        return [inputs[self.rows]] * len(self.bank.bank_features)

    def _split(self, parts: int) -> list[SourceBatch]:
        size = len(self.rows) // parts
        return [
            BankBatch(self.bank, rows, self.samples[first : first + size])
            for first, rows in zip(range(0, len(self.rows), size), self.rows.split(size), strict=True)
        ]


def _features(images: Tensor, encoders: Sequence[Encoder]) -> list[Tensor]:
    return [torch.cat([encoder.encode_image(some) for some in images.split(_BANK_BATCH)]) for encoder in encoders]
