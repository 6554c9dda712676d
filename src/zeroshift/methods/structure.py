"""A loss that keeps the structure of each image: the self-similarity of the encoder's middle maps.

docs/scaffold.md derives it. A direction says where a domain lies, but not what must stay of a person. The structure
loss is strict at first, and in the second half acts only if the target images become too much alike. A scaffold is
taken down when the building stands. With it all layers can train at every step, so the adaptive choice of layers is not
needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.losses import normalize, structure
from zeroshift.config.schema import require
from zeroshift.config.settings import MethodOptions
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.methods.base import Method, Pairs
from zeroshift.methods.context import TrainingContext

__all__ = ["StructureOptions", "Structured"]

_DECAY = 0.9  # of the moving sums over the steps from which variances are computed
_ALIKE = 1e-4  # variance of unit features below which rounding matters
_NUMBERS = {"adapt.layers": ("all",), "adapt.clamp_images": True, "adapt.range_weight": 5.0}  # in every preset


@dataclass(frozen=True)
class StructureOptions(MethodOptions):
    """Settings of methods that keep the structure of each image."""

    structure_weight: float = 24.0
    """Weight of the structure loss at the first step; it compares the self-similarities of source and target image."""
    structure_final: float = 0.0
    """Its weight at the end of the fall; the fall is linear."""
    structure_until: float = 0.5
    """Fraction of the steps in which the weight falls; afterwards it stays."""
    structure_hold: float = 24.0
    """Largest weight while the target images are too much alike, if the falling one is smaller; 0: not held."""
    structure_variance: float = 0.7
    """Variance of the target images' features, as a fraction of the source's, below which the structure is held."""
    structure_margin: float = 0.3
    """How far below `structure_variance` the fraction has to be for the whole of `structure_hold`."""
    structure_levels: tuple[int, ...] = ()
    """Levels of the encoder's image tower whose maps are compared, from 0; empty: the middle one."""

    def validate(self) -> None:
        """Checks the values.

        Raises:
            ZeroshiftError: naming the first setting with an invalid value.
        """
        super().validate()
        for name in ("structure_weight", "structure_final", "structure_hold", "structure_variance"):
            value = getattr(self, name)
            require(value >= 0, f"{name} is {value}; it must be at least 0.")
        require(0 < self.structure_until <= 1, f"structure_until is {self.structure_until}; it must be in (0, 1].")
        require(self.structure_margin > 0, f"structure_margin is {self.structure_margin}; it must be positive.")


class Structured(Method):
    """A method with a structure loss that fades out, and all layers trained."""

    Options: ClassVar[type[MethodOptions]] = StructureOptions
    paced_by_steps = "the structure weight"
    curves: ClassVar[Mapping[str, str]] = {
        "structure": "How much the layout of the target image differs from the source's, with a weight that fades out.",
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: _NUMBERS for name in ("published", "published-diffusion", "miniature", "miniature-diffusion")
    }

    def __init__(self, context: TrainingContext):
        super().__init__(context)
        self._levels = [self._levels_of(encoder) for encoder in context.encoders] if self._active else []
        sizes = [encoder.embed_dim + 2 for encoder in context.encoders]
        self._moments = [torch.zeros(2, size, device=context.distributed.device) for size in sizes]  # moving sums
        self._step = [torch.zeros_like(each) for each in self._moments]  # sums of the step

    @property
    def _active(self) -> bool:
        options = self.options
        return bool(options.structure_hold or options.structure_weight or options.structure_final)

    @property
    def needs_means(self) -> bool:
        """Whether moving sums of features are kept: the weight depends on the variance of the target images."""
        return bool(self.options.structure_hold)

    def _levels_of(self, encoder: Encoder) -> Sequence[int]:
        count = encoder.num_levels
        levels: tuple[int, ...] = self.options.structure_levels or ((count - 1) // 2,)
        for level in levels:
            if not 0 <= level < count:
                raise ZeroshiftError(
                    f"structure_levels has {level}, but the encoder's image tower has the levels 0 to {count - 1}."
                )
        return levels

    def map_levels(self) -> list[Sequence[int]]:
        """The levels that the structure loss compares; none if its weight is 0."""
        return self._levels if self._active else super().map_levels()

    def begin_step(self, step: int, target: Generator) -> None:
        """Adds the images of the step before, of all processes, to the moving sums."""
        if not self.needs_means:
            return
        flat = self.context.distributed.sum(torch.cat([each.flatten() for each in self._step]))
        parts = flat.split([each.numel() for each in self._step])
        self._moments = [_DECAY * old + new.view_as(old) for old, new in zip(self._moments, parts, strict=True)]
        self._step = [torch.zeros_like(each) for each in self._step]

    def extra_losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """The weighted structure loss: mean over levels, weighted sum over encoders."""
        if self.needs_means:
            count = len(pairs.samples)
            both = zip(pairs.source_features, pairs.target_features, strict=True)
            sums = [torch.stack([_sums(source, count), _sums(target, count)]) for source, target in both]
            self._step = [old + new for old, new in zip(self._step, sums, strict=True)]
        if not self._active:
            return {}
        terms = [
            weight * torch.stack([structure(s, t) for s, t in zip(source, target, strict=True)]).mean()
            for weight, source, target in zip(
                self.context.config.weights, pairs.source_maps, pairs.target_maps, strict=True
            )
        ]
        return {"structure": (self.structure_weights(pairs.step) * torch.stack(terms)).sum()}

    def structure_weights(self, step: int) -> Tensor:
        """Weights of the structure loss at a step, one per encoder: the larger of the falling and the held one."""
        first: float = self.options.structure_weight
        final: float = self.options.structure_final
        falls: float = self.options.structure_until * max(1, self.context.config.adapt.steps - 1)  # steps
        falling = first + (final - first) * min(1.0, step / falls)
        missing = (self.options.structure_variance - self.variance()) / self.options.structure_margin
        held: Tensor = self.options.structure_hold * missing.clamp(0, 1)
        return held.clamp(min=falling)

    def means(self) -> list[Tensor]:
        """Mean features [2, E] of the source and the target images of about ten earlier steps, one per encoder.

        Features are the mean over the augmented copies of unit features. Zero at the first step.
        """
        return [moments[:, :-2] / moments[:, -1:].clamp(min=1) for moments in self._moments]

    def variance(self) -> Tensor:
        """Variance of the target images' features as a fraction of the source images', per encoder; 1 at first.

        Both are of the images of about ten steps. The features of an image are the mean over its augmented copies.
        """
        fractions = []
        for moments in self._moments:
            total, squares, count = moments[:, :-2], moments[:, -2], moments[:, -1].clamp(min=1)
            source, target = (squares / count - (total / count[:, None]).square().sum(dim=1)).unbind()
            fractions.append(torch.where(source > _ALIKE, target / source.clamp(min=_ALIKE), torch.ones_like(source)))
        return torch.stack(fractions)

    def state_dict(self) -> dict[str, Any]:
        """The moving sums; nothing if they are not kept."""
        return {"moments": self._moments, "step": self._step} if self.needs_means else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned. Checkpoints of earlier versions have no sums: they begin at zero."""
        if "moments" in state:
            device = self.context.distributed.device
            self._moments, self._step = ([each.to(device) for each in state[name]] for name in ("moments", "step"))


def _sums(features: Tensor, count: int) -> Tensor:
    """Of the unit features [copies * n, E] of n images: their sum, the sum of their squares, and n: [E + 2]."""
    unit = normalize(features.detach()).unflatten(0, (-1, count)).mean(dim=0)
    return torch.cat([unit.sum(dim=0), unit.square().sum().view(1), unit.new_tensor([len(unit)])])
