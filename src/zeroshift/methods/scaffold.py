"""Scaffold: IPL's image-specific directions, with a term that keeps the structure of each image.

docs/scaffold.md derives it. A direction says where the mean of a domain lies, but not what must stay of a person. Here
the self-similarity of the encoder's middle maps must stay, at first strictly, in the second half not at all: a
scaffold, taken down when the building stands. With it all layers can train at every step, so the adaptive choice of
layers is not needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.losses import structure
from zeroshift.config.schema import require
from zeroshift.config.settings import MethodOptions
from zeroshift.errors import ZeroshiftError
from zeroshift.methods.base import Pairs
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.ipl import IPL, IPLOptions

__all__ = ["Scaffold", "ScaffoldOptions"]

_NUMBERS = {"adapt.layers": ("all",), "adapt.clamp_images": True, "adapt.range_weight": 5.0}  # in every preset


@dataclass(frozen=True)
class ScaffoldOptions(IPLOptions):
    """Settings of Scaffold."""

    structure_weight: float = 24.0
    """Weight of the structure loss at the first step; it compares the self-similarities of source and target image."""
    structure_final: float = 0.0
    """Its weight at the end of the fall; the fall is linear."""
    structure_until: float = 0.5
    """Fraction of the steps in which the weight falls; afterwards it stays."""
    structure_levels: tuple[int, ...] = ()
    """Levels of the encoder's image tower whose maps are compared, from 0; empty: the middle one."""

    def validate(self) -> None:
        """Checks the values.

        Raises:
            ZeroshiftError: naming the first setting with an invalid value.
        """
        super().validate()
        for name in ("structure_weight", "structure_final"):
            value = getattr(self, name)
            require(value >= 0, f"{name} is {value}; it must be at least 0.")
        require(0 < self.structure_until <= 1, f"structure_until is {self.structure_until}; it must be in (0, 1].")


class Scaffold(IPL):
    """Image-specific prompt learning with a structure loss that fades out."""

    Options: ClassVar[type[MethodOptions]] = ScaffoldOptions
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

    @property
    def _active(self) -> bool:
        return bool(self.options.structure_weight or self.options.structure_final)

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

    def extra_losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """The weighted structure loss: mean over levels, weighted sum over encoders."""
        if not self._active:
            return {}
        terms = [
            weight * torch.stack([structure(s, t) for s, t in zip(source, target, strict=True)]).mean()
            for weight, source, target in zip(
                self.context.config.weights, pairs.source_maps, pairs.target_maps, strict=True
            )
        ]
        return {"structure": self._weight(pairs.step) * torch.stack(terms).sum()}

    def _weight(self, step: int) -> float:
        """The weight of the structure loss at a step."""
        first: float = self.options.structure_weight
        final: float = self.options.structure_final
        falls: float = self.options.structure_until * max(1, self.context.config.adapt.steps - 1)  # steps
        return first + (final - first) * min(1.0, step / falls)
