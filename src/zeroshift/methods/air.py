"""AIR: NADA with anchors (Liu et al., 2025).

Image and text offsets agree better between similar concepts. AIR therefore adds directions from intermediate
generators, the anchors, to the target.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.losses import directional, normalize, offset
from zeroshift.config.settings import AdaptConfig, MethodOptions
from zeroshift.core.dtypes import at_least_float32
from zeroshift.core.rng import normal
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.methods.base import Pairs
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.nada import FixedDirection

__all__ = ["AIR", "AIROptions", "blended_label", "learn_prompt"]

_BATCH_SIZE = 50  # images encoded at a time


@dataclass(frozen=True)
class AIROptions(MethodOptions):
    """Settings of AIR. The defaults are the paper's; the published program uses half the learning rate for prompts."""

    anchor_start: float = 0.5
    """Fraction of the steps before the first anchor."""
    anchor_every: float = 0.1
    """Fraction of the steps between anchors."""
    anchor_weight: float = 1.0
    """Weight of the directional loss from the anchor."""
    anchor_samples: int = 1000
    """Images from which the offset between two anchors is estimated."""
    prompt_context: str = "a photo of a"
    """Words that initialize the context vectors of an anchor's learned prompt."""
    prompt_steps: int = 200
    """Optimizer steps for the prompt of an anchor."""
    prompt_lr: float = 0.002
    """Adam's learning rate for the prompt of an anchor."""

    def validate(self) -> None:
        """Checks the values.

        Raises:
            ZeroshiftError: naming the first setting with an invalid value.
        """
        if not (0 < self.anchor_start < 1 and 0 < self.anchor_every < 1):
            raise ZeroshiftError("anchor_start and anchor_every are fractions of the steps, between 0 and 1.")
        if self.prompt_steps < 1 or self.anchor_samples < 1:
            raise ZeroshiftError("prompt_steps and anchor_samples must be at least 1.")
        if self.prompt_lr <= 0 or self.anchor_weight < 0:
            raise ZeroshiftError("prompt_lr must be positive, and anchor_weight at least 0.")
        if not self.prompt_context.strip():
            raise ZeroshiftError("prompt_context is empty. Give the first words, such as 'a photo of a'.")


def blended_label(encoder: Encoder, source: str, target: str, alpha: float) -> Tensor:
    """(1 - alpha) source + alpha target, of the labels' token embeddings: [1, L, width], with the target's length L.

    As in the published program, a longer source label is truncated to the target's length. A shorter one is padded: in
    the program by the end and padding tokens after it, here by repeating its last token.
    """
    labels = [encoder.embed_words(label) for label in (source, target)]  # [L, width]
    positions = torch.arange(len(labels[1]), device=encoder.device).clamp(max=len(labels[0]) - 1)
    return torch.lerp(labels[0][positions], labels[1], alpha)[None]


def learn_prompt(
    encoder: Encoder, ctx: Tensor, label: Tensor, before: Tensor, moved: Tensor, steps: int, lr: float
) -> Tensor:
    """The unit feature [E] of an anchor's prompt P_i, learned by Adam on 1 - cos(moved, normalize(E_T(P_i)) - before).

    Args:
        ctx: initial context vectors [1, m, width].
        label: embeddings [1, L, width] that follow the context.
        before: [E], the feature of P_(i - 1).
        moved: [E], the mean unit offset of images from the previous anchor to this one.
    """

    def feature(ctx: Tensor) -> Tensor:
        return normalize(encoder.encode_prompts(torch.cat([ctx, label], dim=1), "")[0])

    learned = ctx.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([learned], lr=lr)
    for _ in range(steps):
        loss = 1 - torch.cosine_similarity(feature(learned) - before, moved, dim=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return feature(learned).detach()


class AIR(FixedDirection):
    """NADA with a second directional loss after half of the steps: from an anchor, an earlier G_t, to the target."""

    Options: ClassVar[type[MethodOptions]] = AIROptions
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {"adapt.layers": ("all",)},
    }
    paced_by_steps: ClassVar[str] = "the anchors"
    curves: ClassVar[Mapping[str, str]] = {
        "anchor": "As directional, but from the last anchor, an earlier state of the generator, instead of the source.",
    }

    def __init__(self, context: TrainingContext):
        super().__init__(context)
        config = context.config
        steps = config.adapt.steps
        self._start = max(1, round(self.options.anchor_start * steps))
        self._every = max(1, round(self.options.anchor_every * steps))
        self._anchor: Generator | None = None
        self._anchor_features: list[Tensor] = []  # [samples, E], images of the last anchor, one per encoder
        self._prompts: list[Tensor] = []  # [E], the feature of its prompt, one per encoder
        with torch.no_grad():
            sources, targets = zip(*self.domain_features(), strict=True)
            self._labels = list(zip(sources, self.target_domain.move_features(sources, targets), strict=True))
        # Both raise for invalid settings before the run starts: samples that do not split, a label that is too long.
        context.distributed.share(range(self.options.anchor_samples))
        for encoder in context.encoders:
            self._read_prompt(encoder)

    @classmethod
    def reads_labels(cls, config: AdaptConfig) -> bool:
        """Always: the prompts of anchors begin with them."""
        return True

    def _read_prompt(self, encoder: Encoder, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
        """Initial context [1, m, width] and blended label [1, L, width] of a prompt."""
        config = self.context.config
        ctx = encoder.embed_words(self.options.prompt_context)[None]
        label = blended_label(encoder, config.source, config.target, alpha)
        encoder.encode_prompts(torch.cat([ctx, label], dim=1), "")
        return ctx, label

    def begin_step(self, step: int, target: Generator) -> None:
        """Sets a new anchor at the scheduled steps."""
        if step >= self._start and (step - self._start) % self._every == 0:
            self._set_anchor(step, target)

    def _set_anchor(self, step: int, target: Generator) -> None:
        config, options = self.context.config, self.options
        if self._anchor is None:
            self._anchor_features = self._features(self.context.source)
            self._prompts = [source for source, _ in self._labels]
        self._anchor = copy.deepcopy(target).requires_grad_(False)
        features, prompts = self._features(self._anchor), []
        for encoder, before, now, prompt in zip(
            self.context.encoders, self._anchor_features, features, self._prompts, strict=True
        ):
            moved = normalize(offset(before, now).mean(dim=0))
            start = self._read_prompt(encoder, alpha=step / config.adapt.steps)
            prompts.append(learn_prompt(encoder, *start, prompt, moved, options.prompt_steps, options.prompt_lr))
        self._anchor_features, self._prompts = features, prompts

    @torch.no_grad()
    def _features(self, generator: Generator) -> list[Tensor]:
        """Features [samples, E] of a generator's images of the same latents, one per encoder."""
        context, source = self.context, self.context.source
        mine = context.distributed.share(range(self.options.anchor_samples))
        batches = []
        for first in range(0, len(mine), _BATCH_SIZE):
            part = mine[first : first + _BATCH_SIZE]
            latents = normal(source.latent_shape, context.config.seed, "anchors", samples=part).to(source.device)
            codes = source.codes(latents, context.labels(len(part)), truncation_psi=context.config.truncation_psi)
            with context.autocast():
                images = at_least_float32(generator.synthesize(codes))
                batches.append([encoder.encode_image(images) for encoder in context.encoders])
        return [context.distributed.gather(torch.cat(features)) for features in zip(*batches, strict=True)]

    def anchor_directions(self) -> list[Tensor]:
        """normalize(E_T(target) - E_T(P_i)) from the last anchor, [1, E], one per encoder."""
        return [
            normalize(target - prompt)[None] for (_, target), prompt in zip(self._labels, self._prompts, strict=True)
        ]

    def extra_losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """1 - cos(E_I(G_t) - E_I(A_i), E_T(target) - E_T(P_i)), weighted."""
        if self._anchor is None:
            return {}
        terms = [
            weight * directional(anchor, now, direction)
            for weight, anchor, now, direction in zip(
                self.context.config.weights, pairs.features_of(self._anchor), pairs.target_features,
                self.anchor_directions(), strict=True,
            )
        ]  # fmt: skip
        return {"anchor": self.options.anchor_weight * torch.stack(terms).sum()}

    def state_dict(self) -> dict[str, Any]:
        """The last anchor with its features and prompts; empty before the first anchor."""
        if self._anchor is None:
            return {}
        return {"anchor": self._anchor.state_dict(), "seen": self._anchor_features, "prompts": self._prompts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        if state:
            self._anchor = copy.deepcopy(self.context.source)
            self._anchor.load_state_dict(state["anchor"])
            device = self.context.distributed.device
            self._anchor_features = [features.to(device) for features in state["seen"]]
            self._prompts = [prompt.to(device) for prompt in state["prompts"]]
