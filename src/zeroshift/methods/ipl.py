"""IPL: a direction of its own for each image, from prompts learned for it (Guo et al., CVPR 2023)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zeroshift.clip.losses import contrastive, domain_regularization, normalize
from zeroshift.clip.prompts import LatentMapper, PromptPair, base_texts
from zeroshift.core.rng import stream
from zeroshift.methods.base import Method, Stage, check_finite
from zeroshift.methods.context import TrainingContext

__all__ = ["IPL", "METHOD", "PromptLearning", "PromptUpdate"]


@dataclass(frozen=True)
class PromptUpdate:
    """What a step of stage 1 saw, one entry an encoder, for this process's samples."""

    losses: dict[str, float]
    source_features: list[Tensor]  # learned prompts, without base text, not normalised, [n, E]
    target_features: list[Tensor]


class PromptLearning:
    """Stage 1: trains the latent mapper F, one for each encoder, on images of the source generator."""

    name = "prompts"

    def __init__(self, context: TrainingContext, mappers: Sequence[LatentMapper], pairs: Sequence[PromptPair]):
        self._context, self.pairs = context, pairs
        settings = context.config.prompts
        self.steps, self._batch = settings.steps, settings.batch_size
        self._domain_weight, self._source_weight = settings.domain_weight, settings.source_weight
        self.mappers = nn.ModuleList(mappers)
        self._optimizer = torch.optim.Adam(self.mappers.parameters(), lr=settings.lr)
        labels = (context.config.source, context.config.target)
        self._labels = [[encoder.label_feature(label) for label in labels] for encoder in context.encoders]

    def step(self, step: int) -> dict[str, Any]:
        """Draws the latents of a step and trains on them."""
        samples = self._context.distributed.share(range(self._batch))
        return self.update(self._context.latents("prompts", step, samples), step, samples).losses

    def update(self, latents: Tensor, step: int, samples: Sequence[int]) -> PromptUpdate:
        """One optimiser step on this process's latents [n, *latent_shape], numbered `samples` in the whole batch.

        IPL, equations 3 to 5: loss = contrastive + domain_weight (target domain + source_weight source domain).
        """
        context = self._context
        with torch.no_grad(), context.autocast():
            labels = context.labels(len(latents))
            image_features = context.source_features(latents, context.codes(latents, labels), self.name, step, samples)
            mapper_inputs = context.mapper_inputs(latents, labels, lambda: image_features)
        terms, learned = [], []
        for mapper, pair, mapper_input, images_seen, labels_seen, weight in zip(
            self.mappers, self.pairs, mapper_inputs, image_features, self._labels, context.config.weights, strict=True
        ):
            with context.autocast():
                learned.append(pair.learned(mapper(mapper_input)))
            source, target = pair.with_base(*learned[-1])
            everyone = contrastive(
                context.distributed.gather(images_seen), context.distributed.gather(source), pair.encoder.logit_scale
            )
            # The contrastive term is of the whole batch already; of the other two each process holds a summand.
            share = len(latents) / self._batch
            target_term = domain_regularization(target, labels_seen[1]) * share
            source_term = domain_regularization(source, labels_seen[0]) * share
            own = self._domain_weight * (target_term + self._source_weight * source_term)
            terms.append(weight * torch.stack([everyone, target_term, source_term, own]))
        total = torch.stack(terms).sum(dim=0)  # [4]
        self._optimizer.zero_grad(set_to_none=True)
        (total[0] + total[3]).backward()
        context.distributed.sum_gradients(self.mappers.parameters())
        summed = context.distributed.sum(total[1:])
        values = [float(total[0].detach()), *summed.tolist()]
        losses = {"loss": values[0] + values[3], "contrastive": values[0], "domain": values[1], "source": values[2]}
        check_finite(losses, self.name, step)
        self._optimizer.step()
        sources, targets = zip(*([one.detach() for one in pair] for pair in learned), strict=True)
        return PromptUpdate(losses, list(sources), list(targets))

    def state_dict(self) -> dict[str, Any]:
        """Mappers and optimiser."""
        return {"mappers": self.mappers.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self.mappers.load_state_dict(state["mappers"])
        self._optimizer.load_state_dict(dict(state["optimizer"]))


class IPL(Method):
    """Image-specific prompt learning."""

    # It is in a domain in fewer steps than with a fixed direction, and those after that cost people; the prompt alone,
    # as in the paper's equations, brings it nearer to the truth than one with a plain text (docs/benchmark.md).
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "miniature": {"adapt.steps": 160, "prompts.base_text": "none"}
    }

    def __init__(self, context: TrainingContext):
        super().__init__(context)
        config, prompts = context.config, context.config.prompts
        source, target = (
            base_texts(prompts.base_text, prompts.context_init, label) for label in (config.source, config.target)
        )
        mappers = []
        for index, (encoder, dim) in enumerate(zip(context.encoders, context.mapper_input_dims, strict=True)):
            seed = stream(config.seed, "mapper", index).initial_seed()
            mapper = LatentMapper(dim, prompts.num_context, encoder.width, seed)
            mappers.append(mapper.to(context.distributed.device))
        learning, self.pairs = (
            [PromptPair(encoder, config.source, config.target, *texts) for encoder in context.encoders]
            for texts in zip(source, target, strict=True)
        )
        self._learning = PromptLearning(context, mappers, learning)
        nothing = [torch.zeros(1, dim, device=context.distributed.device) for dim in context.mapper_input_dims]
        self.text_directions(nothing, 0)  # a label that is too long is told here, before anything is written

    @property
    def mappers(self) -> nn.ModuleList:
        """The latent mappers F, one an encoder."""
        return self._learning.mappers

    def stages(self) -> list[Stage]:
        """Stage 1."""
        return [self._learning]

    @torch.no_grad()
    def text_directions(self, mapper_inputs: Sequence[Tensor], step: int) -> list[Tensor]:
        """[n, E], one an encoder: normalize(normalize(E_T(M_t(w))) - normalize(E_T(M_s(w)))), IPL, equation 6."""
        directions = []
        for mapper, pair, mapper_input in zip(self.mappers, self.pairs, mapper_inputs, strict=True):
            source, target = pair.with_base(*self.learned(mapper, pair, mapper_input))
            directions.append(normalize(normalize(target) - normalize(source)))
        return directions

    def learned(self, mapper: nn.Module, pair: PromptPair, mapper_input: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the learned prompts without base text, 2 x [n, E]."""
        with self.context.autocast():
            return pair.learned(mapper(mapper_input))


METHOD = IPL
