"""What a method is to the trainer."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from ..bank import Bank
from ..config import AdaptConfig, MethodOptions
from ..encoder import Encoder
from ..errors import ZeroshiftError
from ..generators.base import Codes, Generator, Latents
from ..losses import unit
from ..precision import at_least_float32
from ..randomness import normal, stream
from ..team import Team

__all__ = ["Method", "Pairs", "Setting", "Stage", "check_finite", "require_whole_batches"]

_PIXELS = 2**18  # of the source images that are made at once; more would cost memory, and on a CPU time


@dataclass(frozen=True)
class Setting:
    """What a run is made of, for methods to take what they need from."""

    config: AdaptConfig
    source: Generator  # frozen
    encoders: Sequence[Encoder]
    team: Team
    bank: Bank | None = None  # the images to draw from; None: new latents at every step

    def latents(self, purpose: str, step: int, samples: Sequence[int]) -> Latents:
        """Latents [n, *latent_shape]; each depends on the seed, the purpose, the step and its sample.

        With a bank, rows of it [n]. Either is for `codes`, `contexts` and the like to understand.
        """
        if self.bank is not None:
            batch = len(samples) * self.team.size
            return self.bank.draw(self.config.seed, purpose, step, samples, batch).to(self.team.device)
        drawn = normal(self.source.latent_shape, self.config.seed, purpose, step, samples=samples)
        return drawn.to(self.team.device)

    def codes(self, latents: Latents, labels: Tensor | None) -> Codes:
        """What the source decides of each sample."""
        return self.source.codes(latents, labels) if self.bank is None else self.bank.codes[latents]

    def source_images(self, latents: Latents, codes: Codes, purpose: str, step: int, samples: Sequence[int]) -> Tensor:
        """G_s of each sample, [n, 3, H, W]; or the bank's images."""
        if self.bank is not None:
            return self.bank.images[latents]
        noise, noise_seed = self.config.adapt.noise, self.noise_seed(purpose, step)
        images = self.source.synthesize(codes, noise=noise, noise_seed=noise_seed, samples=samples)
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
    def context_dims(self) -> list[int]:
        """The width of a sample's context for each encoder."""
        return [self.source.context_dim or encoder.embed_dim for encoder in self.encoders]

    def contexts(
        self, latents: Latents, labels: Tensor | None, image_features: Callable[[], Sequence[Tensor]]
    ) -> list[Tensor]:
        """What a method sees of each sample, one [n, context_dims[i]] an encoder.

        The generator's own code, the same for all; where it has none, the encoder's unit feature of the source image.

        Args:
            image_features: gives the features [n, E] of the source images as they are, one an encoder.
        """
        if self.bank is None:
            code = self.source.context(latents, labels)
        else:
            code = None if self.bank.contexts is None else self.bank.contexts[latents]
        if code is not None:
            return [code] * len(self.encoders)
        return [unit(features) for features in image_features()]

    def noise_seed(self, purpose: str, step: int) -> int:
        """For `Generator.synthesize`; a number that no other purpose and step have."""
        return stream(self.config.seed, "noise", purpose, step).initial_seed()

    def labels(self, count: int) -> Tensor | None:
        """The class of each of `count` samples, [count], for a class-conditional generator."""
        index = self.config.class_index
        return None if index is None else torch.full((count,), index, device=self.team.device)

    def autocast(self) -> torch.autocast:
        """Arithmetic of the networks in the precision asked for."""
        return torch.autocast(self.team.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")


@dataclass(frozen=True)
class Pairs:
    """This process's part of a batch of image pairs."""

    step: int
    samples: Sequence[int]  # their numbers in the whole batch
    contexts: list[Tensor]  # one an encoder, [n, context_dim]
    source_images: Tensor  # [n, 3, H, W], G_s(w)
    target_images: Tensor  # [n, 3, H, W], G_t(w), with graph
    source_features: list[Tensor]  # one an encoder: [n, E], or [views * n, E], all first views first
    target_features: list[Tensor]  # the same, with graph
    features_of: Callable[[Generator], list[Tensor]]  # the same of another generator's images of these samples


class Stage(Protocol):
    """A part of a run that trains something: so many steps, and a state to resume from."""

    name: str
    steps: int

    def step(self, step: int) -> dict[str, Any]:
        """Trains step `step` (from 0) and returns what to log: "loss", over the whole batch, its parts, and more."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that the steps so far have changed: tensors, numbers, strings, lists and dicts."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state_dict` gave."""


class Method:
    """Says which text direction an image pair gets, and what else counts. Subclasses override what differs.

    Attributes:
        Options: the class of the method's own settings, which are in `config.options`.
        presets: for each of `config.PRESETS` the settings that are others for this method, by dotted name.
    """

    Options: ClassVar[type[MethodOptions]] = MethodOptions
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, setting: Setting):
        self.setting = setting
        self._targets = self.target_features()

    def stages(self) -> list[Stage]:
        """What trains before the generator does."""
        return []

    def begin_step(self, step: int, target: Generator) -> None:
        """Called before every step of adaptation, with G_t as it stands."""

    def text_directions(self, contexts: Sequence[Tensor], step: int) -> list[Tensor]:
        """For samples with contexts [n, context_dim] at a step: unit directions [n, E] or [1, E]; one an encoder."""
        raise NotImplementedError

    def extra_losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """Further losses by name, each the mean over `pairs`; they are added to the directional one."""
        return {}

    def joint_losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """Losses that compare the samples of the whole batch (see `everyone`), the same in every process."""
        return {}

    def everyone(self, features: Tensor) -> Tensor:
        """[views * n, E] of this process's samples -> [views, batch, E] of all; the own rows keep their graph."""
        views = max(1, self.setting.config.adapt.views)
        return self.setting.team.gather(features.unflatten(0, (views, -1)).transpose(0, 1)).transpose(0, 1)

    def parametrise(self, target: Generator) -> nn.Module | None:
        """What trains in place of the weights of G_t: a module that gives some of them, by their names in `target`.

        Its parameters are trained through these weights, so G_t and its average stay ordinary generators.
        """
        return None

    def save(self, folder: Path, target: Generator) -> None:
        """Writes what the method leaves in the folder of a run beside `target`, the adapted generator."""

    def target_features(self) -> list[Tensor]:
        """[E], one an encoder: where the target domain lies, for the choice of layers.

        The label as it stands, without template, as in the published programs.
        """
        return [encoder.encode_text([self.setting.config.target])[0] for encoder in self.setting.encoders]

    @property
    def targets(self) -> list[Tensor]:
        """`target_features`, computed once."""
        return self._targets

    def state_dict(self) -> dict[str, Any]:
        """What a method that learns during the adaptation needs to resume."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state_dict` gave."""


def require_whole_batches(config: AdaptConfig, least: int) -> None:
    """Raises ZeroshiftError unless batches have `least` samples and are worked off in one part."""
    if config.adapt.batch < least or config.adapt.accumulate > 1:
        raise ZeroshiftError(
            f"The method {config.method!r} compares the images of a batch with each other: adapt.batch must be at "
            f"least {least}, and adapt.accumulate 1."
        )


def check_finite(losses: Mapping[str, float], stage: str, step: int) -> None:
    """Raises ZeroshiftError if a loss is not a finite number, before it can spoil the weights."""
    for name, value in losses.items():
        if not math.isfinite(value):
            what = "loss" if name == "loss" else f"{name} loss"
            raise ZeroshiftError(
                f"The {what} became {value} at step {step + 1} of stage '{stage}'. The step changed nothing; "
                "start again in another folder (--out) with a lower learning rate, or with precision float32."
            )
