"""Scaffold: IPL's image-specific directions, with a term that keeps the structure of each image.

docs/scaffold.md derives it. A direction says where the mean of a domain lies, but not what must stay of a person. Here
the self-similarity of the encoder's middle maps must stay: at first strictly, in the second half not at all, or only if
images move farther than their texts. A scaffold is taken down when the building stands. With it all layers can train at
every step, so the adaptive choice of layers is not needed.
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
from zeroshift.methods.base import Pairs
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.ipl import IPL, IPLOptions

__all__ = ["Scaffold", "ScaffoldOptions"]

_AVERAGE = 0.8  # share of the earlier steps in the moving average of how far images have moved
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
    structure_hold: float = 0.0
    """Largest weight after the fall, for images that move farther than their texts (24 was tried); 0: not held."""
    structure_margin: float = 0.2
    """How much farther images have to move than their texts for the whole of `structure_hold`, as a fraction."""
    structure_levels: tuple[int, ...] = ()
    """Levels of the encoder's image tower whose maps are compared, from 0; empty: the middle one."""

    def validate(self) -> None:
        """Checks the values.

        Raises:
            ZeroshiftError: naming the first setting with an invalid value.
        """
        super().validate()
        for name in ("structure_weight", "structure_final", "structure_hold"):
            value = getattr(self, name)
            require(value >= 0, f"{name} is {value}; it must be at least 0.")
        require(0 < self.structure_until <= 1, f"structure_until is {self.structure_until}; it must be in (0, 1].")
        require(self.structure_margin > 0, f"structure_margin is {self.structure_margin}; it must be positive.")


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
        device, count = context.distributed.device, len(context.encoders)
        self._text, self._image = (torch.zeros(count, 2, device=device) for _ in range(2))  # of the step: sum, number
        self._reached = torch.zeros(count, device=device)  # moving average of image / text length; 0: no step yet
        super().__init__(context)
        self._levels = [self._levels_of(encoder) for encoder in context.encoders] if self._active else []

    @property
    def _active(self) -> bool:
        return self._holds or bool(self.options.structure_weight or self.options.structure_final)

    @property
    def _holds(self) -> bool:
        """Whether the weight depends on how far images move."""
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
        """Updates how far images have moved, by the lengths of the whole batch of the step before."""
        if not self._holds:
            return
        text, image = self.context.distributed.sum(torch.stack([self._text, self._image]))
        now = (image[:, 0] * text[:, 1]) / (image[:, 1] * text[:, 0])  # ratio of means; NaN before the first step
        average = torch.where(self._reached == 0, now, torch.lerp(now, self._reached, _AVERAGE))
        self._reached = torch.where(now.isfinite(), average, self._reached)
        self._text, self._image = torch.zeros_like(text), torch.zeros_like(image)

    def text_directions(self, mapper_inputs: Sequence[Tensor], step: int) -> list[Tensor]:
        """See `IPL.text_directions`."""
        shifts = self.text_shifts(mapper_inputs)
        if self._holds:
            self._text = self._text + _lengths(shifts)
        return [normalize(shift) for shift in shifts]

    def extra_losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """The weighted structure loss: mean over levels, weighted sum over encoders."""
        if not self._active:
            return {}
        if self._holds:
            moved = zip(pairs.source_features, pairs.target_features, strict=True)
            self._image = self._image + _lengths([normalize(t.detach()) - normalize(s) for s, t in moved])
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
        farther = ((self._reached - 1) / self.options.structure_margin).clamp(0, 1)
        held: Tensor = self.options.structure_hold * farther
        return held.clamp(min=falling)

    def state_dict(self) -> dict[str, Any]:
        """How far images have moved; nothing if that is not measured."""
        if not self._holds:
            return {}
        return {"reached": self._reached, "text": self._text, "image": self._image}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned. Checkpoints of earlier versions have nothing: measured again."""
        if state:
            device = self._reached.device
            self._reached, self._text, self._image = (state[name].to(device) for name in ("reached", "text", "image"))


def _lengths(shifts: Sequence[Tensor]) -> Tensor:
    """Sum of the lengths of shifts [n, E], and n, one row per encoder: [encoders, 2]."""
    rows = [torch.stack([each.norm(dim=1).sum(), each.new_tensor(len(each))]) for each in shifts]
    return torch.stack(rows).detach()
