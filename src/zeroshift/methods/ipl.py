"""IPL: a direction of its own for each image, from prompts learned for it (Guo et al., CVPR 2023)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zeroshift.clip.losses import contrastive, domain_regularisation, unit
from zeroshift.clip.prompts import LatentMapper, PromptPair, base_texts
from zeroshift.core.rng import stream
from zeroshift.methods.base import Method, Stage, check_finite
from zeroshift.methods.context import Setting

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

    def __init__(self, setting: Setting, mappers: Sequence[LatentMapper], pairs: Sequence[PromptPair]):
        self._setting, self.pairs = setting, pairs
        settings = setting.config.prompts
        self.steps, self._batch = settings.steps, settings.batch
        self._domain_weight, self._source_weight = settings.domain_weight, settings.source_weight
        self.mappers = nn.ModuleList(mappers)
        self._optimizer = torch.optim.Adam(self.mappers.parameters(), lr=settings.lr)
        labels = (setting.config.source, setting.config.target)
        self._labels = [[encoder.label_feature(label) for label in labels] for encoder in setting.encoders]

    def step(self, step: int) -> dict[str, Any]:
        """Draws the latents of a step and trains on them."""
        samples = self._setting.team.share(range(self._batch))
        return self.update(self._setting.latents("prompts", step, samples), step, samples).losses

    def update(self, latents: Tensor, step: int, samples: Sequence[int]) -> PromptUpdate:
        """One optimiser step on this process's latents [n, *latent_shape], numbered `samples` in the whole batch.

        IPL, equations 3 to 5: loss = contrastive + domain_weight (target domain + source_weight source domain).
        """
        setting = self._setting
        with torch.no_grad(), setting.autocast():
            labels = setting.labels(len(latents))
            image_features = setting.source_features(latents, setting.codes(latents, labels), self.name, step, samples)
            contexts = setting.contexts(latents, labels, lambda: image_features)
        terms, learned = [], []
        for mapper, pair, context, images_seen, labels_seen, weight in zip(
            self.mappers, self.pairs, contexts, image_features, self._labels, setting.config.weights, strict=True
        ):
            with setting.autocast():
                learned.append(pair.learned(mapper(context)))
            source, target = pair.with_base(*learned[-1])
            everyone = contrastive(
                setting.team.gather(images_seen), setting.team.gather(source), pair.encoder.logit_scale
            )
            # The contrastive term is of the whole batch already; of the other two each process holds a summand.
            share = len(latents) / self._batch
            target_term = domain_regularisation(target, labels_seen[1]) * share
            source_term = domain_regularisation(source, labels_seen[0]) * share
            own = self._domain_weight * (target_term + self._source_weight * source_term)
            terms.append(weight * torch.stack([everyone, target_term, source_term, own]))
        total = torch.stack(terms).sum(dim=0)  # [4]
        self._optimizer.zero_grad(set_to_none=True)
        (total[0] + total[3]).backward()
        setting.team.sum_gradients(self.mappers.parameters())
        summed = setting.team.sum(total[1:])
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

    def __init__(self, setting: Setting):
        super().__init__(setting)
        config, prompts = setting.config, setting.config.prompts
        source, target = (
            base_texts(prompts.base_text, prompts.context_init, label) for label in (config.source, config.target)
        )
        mappers = []
        for index, (encoder, dim) in enumerate(zip(setting.encoders, setting.context_dims, strict=True)):
            seed = stream(config.seed, "mapper", index).initial_seed()
            mapper = LatentMapper(dim, prompts.num_context, encoder.width, seed)
            mappers.append(mapper.to(setting.team.device))
        learning, self.pairs = (
            [PromptPair(encoder, config.source, config.target, *texts) for encoder in setting.encoders]
            for texts in zip(source, target, strict=True)
        )
        self._learning = PromptLearning(setting, mappers, learning)
        nothing = [torch.zeros(1, dim, device=setting.team.device) for dim in setting.context_dims]
        self.text_directions(nothing, 0)  # a label that is too long is told here, before anything is written

    @property
    def mappers(self) -> nn.ModuleList:
        """The latent mappers F, one an encoder."""
        return self._learning.mappers

    def stages(self) -> list[Stage]:
        """Stage 1."""
        return [self._learning]

    @torch.no_grad()
    def text_directions(self, contexts: Sequence[Tensor], step: int) -> list[Tensor]:
        """[n, E], one an encoder: unit(unit(E_T(M_t(w))) - unit(E_T(M_s(w)))), IPL, equation 6."""
        directions = []
        for mapper, pair, context in zip(self.mappers, self.pairs, contexts, strict=True):
            source, target = pair.with_base(*self.learned(mapper, pair, context))
            directions.append(unit(unit(target) - unit(source)))
        return directions

    def learned(self, mapper: nn.Module, pair: PromptPair, context: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the learned prompts without base text, 2 x [n, E]."""
        with self.setting.autocast():
            return pair.learned(mapper(context))


METHOD = IPL
