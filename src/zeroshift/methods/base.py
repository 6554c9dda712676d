"""Base classes of adaptation methods and of the stages that they train."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from zeroshift.config.settings import AdaptConfig, MethodOptions
from zeroshift.errors import NotFiniteError, ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.target_domain import TargetDomain

__all__ = ["Method", "Pairs", "Stage", "check_finite", "require_whole_batches"]


@dataclass(frozen=True)
class Pairs:
    """This process's part of a batch of image pairs.

    Features are [n, E], one tensor per encoder, or with augmentations [augmentations * n, E], where the first
    augmentation of all samples comes first.
    """

    step: int
    samples: Sequence[int]  # numbers of the n samples in the whole batch
    mapper_inputs: list[Tensor]  # [n, mapper_input_dim], one per encoder
    source_images: Tensor  # [n, 3, H, W], G_s(w)
    target_images: Tensor  # [n, 3, H, W], G_t(w), with graph
    source_features: list[Tensor]
    target_features: list[Tensor]  # with graph
    source_maps: list[list[Tensor]]  # per encoder and level of `Method.map_levels`: [copies * n, C, h, w]
    target_maps: list[list[Tensor]]  # with graph
    features_of: Callable[[Generator], list[Tensor]]  # features of another generator's images of these samples


class Stage(ABC):
    """A part of a run that trains something in a number of steps, and can be resumed.

    Attributes:
        name: name in metrics.jsonl, in checkpoints and in the STAGES registry.
        title: heading in reports.
        steps: number of steps.
        curves: what the logged numbers mean, one plain sentence for each name, for reports.
    """

    name: str
    title: str = ""
    steps: int
    curves: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def step(self, step: int) -> dict[str, Any]:
        """Trains one step.

        Args:
            step: number of the step, from 0.

        Returns:
            What to log: "loss" over the whole batch, its parts by name, and other values that JSON can hold.
        """

    def preview(self, num: int) -> tuple[Tensor, int] | None:
        """A picture of what the stage has learned so far, for the folder previews; None: there is nothing to show.

        Args:
            num: number of samples to show.

        Returns:
            Tiles [N, 3, H, W] in [-1, 1], and the number of tiles in a row.
        """
        return None

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that the steps so far have changed: tensors, numbers, strings, lists and dicts."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""


class Method:
    """Decides the text direction of each image pair and further losses. Subclasses override what differs.

    Attributes:
        Options: class of the method's own settings.
        presets: settings of this method by preset name and dotted name; other settings keep the preset's values.
        unused_settings: dotted names of common settings that this method does not read. They are hidden.
        paced_by_steps: what the method spreads over all adapt steps, such as "the anchors"; more steps stretch it.
        needs_bridge: whether each guidance encoder needs a bridge from texts to images (`zeroshift.clip.bridge`).
        curves: what the method's own losses mean, one plain sentence for each name, for reports.
        context: the run's training context.
        options: the method's own settings, an instance of `Options`.
        target_domain: the target domain: label, further texts and example images.
    """

    Options: ClassVar[type[MethodOptions]] = MethodOptions
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    unused_settings: ClassVar[frozenset[str]] = frozenset()
    paced_by_steps: ClassVar[str] = ""
    needs_bridge: ClassVar[bool] = False
    curves: ClassVar[Mapping[str, str]] = {}

    def __init__(self, context: TrainingContext):
        self.context = context
        options = context.config.options
        self.options: Any = options if type(options) is self.Options else self.Options()
        self.target_domain = TargetDomain(context)
        self._targets = self.target_features()

    @classmethod
    def reads_labels(cls, config: AdaptConfig) -> bool:
        """Whether the labels decide the direction, so that they are checked before the run."""
        return True

    def stages(self) -> list[Stage]:
        """Stages to train before the generator, in order."""
        return []

    def begin_step(self, step: int, target: Generator) -> None:
        """Called before every adapt step with the current target generator."""

    def text_directions(self, mapper_inputs: Sequence[Tensor], step: int) -> list[Tensor]:
        """Text directions of samples at a step, from the source label to the target label.

        `directions` moves them to further texts and example images (`TargetDomain.move`).

        Args:
            mapper_inputs: [n, mapper_input_dim], one per encoder.

        Returns:
            Unit vectors [n, E], or [1, E] for one common direction; one tensor per encoder.
        """
        raise NotImplementedError

    def directions(self, features: Sequence[Tensor], mapper_inputs: Sequence[Tensor], step: int) -> list[Tensor]:
        """The directions that pairs follow: `text_directions`, moved to further texts and example images.

        Args:
            features: of the source images, one per encoder, as `Pairs.source_features`.
            mapper_inputs: [n, mapper_input_dim], one per encoder.

        Returns:
            Unit vectors [n, E], or [1, E] for one common direction; one tensor per encoder.
        """
        return self.target_domain.move(self.text_directions(mapper_inputs, step))

    def extra_losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """Further losses by name, each the mean over `pairs`. They are added to the directional loss."""
        return {}

    def joint_losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """Losses that compare samples of the whole batch (see `gather_batch`), equal in every process."""
        return {}

    def map_levels(self) -> list[Sequence[int]]:
        """Levels of the encoders' image towers whose maps `Pairs` holds, one list per encoder (`encode_with_maps`)."""
        return [() for _ in self.context.encoders]

    def gather_batch(self, features: Tensor) -> Tensor:
        """Features of all processes: [copies * n, E] -> [copies, batch, E], where `copies` counts the augmented copies.

        Rows of this process keep their graph.
        """
        copies = max(1, self.context.config.adapt.augmentations)
        split = features.unflatten(0, (copies, -1)).transpose(0, 1)
        return self.context.distributed.gather(split).transpose(0, 1)

    def reparametrize(self, target: Generator) -> nn.Module | None:
        """A module that trains instead of the weights of the target generator, or None.

        Its `forward` returns weights by their names in `target`. Its parameters train through these weights, so the
        target and its moving average stay ordinary generators.
        """
        return None

    def save(self, folder: Path, target: Generator) -> None:
        """Writes further files of the method into a run folder.

        Args:
            target: the adapted generator.
        """

    def target_features(self) -> list[Tensor]:
        """Feature [E] of the target domain for the choice of layers, one per encoder; see `TargetDomain.features`."""
        return self.target_domain.features()

    @property
    def targets(self) -> list[Tensor]:
        """`target_features`, computed once."""
        return self._targets

    def state_dict(self) -> dict[str, Any]:
        """State of a method that learns during the adapt stage, for a resume."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""


def require_whole_batches(config: AdaptConfig, minimum: int) -> None:
    """Checks that batches have `minimum` samples and are not split.

    Raises:
        ZeroshiftError: if they are smaller, or gradients are accumulated.
    """
    if config.adapt.batch_size < minimum or config.adapt.grad_accumulation_steps > 1:
        raise ZeroshiftError(
            f"The method {config.method!r} compares the images of a batch with each other: adapt.batch_size must be "
            f"at least {minimum}, and adapt.grad_accumulation_steps 1."
        )


def check_finite(losses: Mapping[str, float], stage: str, step: int, *, updated: bool | None = None) -> None:
    """Checks losses before they change weights.

    Args:
        updated: whether the stage has changed weights before; None: in all steps but the first.

    Raises:
        NotFiniteError: naming the first loss that is not a finite number.
    """
    for name, value in losses.items():
        if math.isfinite(value):
            continue
        label = "loss" if name == "loss" else f"{name} loss"
        if step > 0 if updated is None else updated:
            raise NotFiniteError(
                f"The {label} became {value} at step {step + 1} of stage '{stage}'. The step was discarded; "
                "start again in another folder (--out) with a lower learning rate, or with precision float32."
            )
        raise NotFiniteError(
            f"The {label} is {value} at the first step of stage '{stage}', before any update, so the learning rate is "
            "not the cause. Choose precision float32, another generator or another encoder."
        )
