"""What a method is to the trainer."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from zeroshift.config.settings import AdaptConfig, MethodOptions
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.methods.context import TrainingContext

__all__ = ["Method", "Pairs", "Stage", "check_finite", "require_whole_batches"]


@dataclass(frozen=True)
class Pairs:
    """This process's part of a batch of image pairs."""

    step: int
    samples: Sequence[int]  # their numbers in the whole batch
    mapper_inputs: list[Tensor]  # one an encoder, [n, mapper_input_dim]
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

    def __init__(self, context: TrainingContext):
        self.context = context
        self._targets = self.target_features()

    def stages(self) -> list[Stage]:
        """What trains before the generator does."""
        return []

    def begin_step(self, step: int, target: Generator) -> None:
        """Called before every step of adaptation, with G_t as it stands."""

    def text_directions(self, mapper_inputs: Sequence[Tensor], step: int) -> list[Tensor]:
        """Unit directions [n, E] or [1, E], one per encoder, for mapper inputs [n, mapper_input_dim] at a step."""
        raise NotImplementedError

    def extra_losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """Further losses by name, each the mean over `pairs`; they are added to the directional one."""
        return {}

    def joint_losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """Losses that compare the samples of the whole batch (see `everyone`), the same in every process."""
        return {}

    def gather_batch(self, features: Tensor) -> Tensor:
        """[views * n, E] of this process's samples -> [views, batch, E] of all; the own rows keep their graph."""
        views = max(1, self.context.config.adapt.augmentations)
        return self.context.distributed.gather(features.unflatten(0, (views, -1)).transpose(0, 1)).transpose(0, 1)

    def reparametrize(self, target: Generator) -> nn.Module | None:
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
        return [encoder.encode_text([self.context.config.target])[0] for encoder in self.context.encoders]

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
    if config.adapt.batch_size < least or config.adapt.grad_accumulation_steps > 1:
        raise ZeroshiftError(
            f"The method {config.method!r} compares the images of a batch with each other: adapt.batch_size must be at "
            f"least {least}, and adapt.grad_accumulation_steps 1."
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
