"""Stage 2: the source generator's copy is trained so that its images leave the source's in the text's direction."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .generators.base import Codes, Generator
from .layers import choose_layers, chosen_count, named_layers, train_only
from .losses import directional, global_similarity
from .methods.base import Method, Pairs, Setting, check_finite
from .views import augment

__all__ = ["AdaptUpdate", "Adaptation"]


@dataclass(frozen=True)
class AdaptUpdate:
    """What a step of stage 2 saw; images and directions are of this process's samples, before the update."""

    losses: dict[str, float]
    layers: list[str]  # trained at this step, best first
    source_images: Tensor  # [n, 3, H, W]
    target_images: Tensor  # [n, 3, H, W]
    text_directions: list[Tensor]  # one an encoder, [n, E] or [1, E]


class Adaptation:
    """Trains `target` under a method; `target_ema`, its moving average, is what is delivered."""

    name = "adapt"

    def __init__(self, setting: Setting, method: Method):
        self._setting, self._method = setting, method
        settings = setting.config.adapt
        self.steps, self._batch = settings.steps, settings.batch
        self._layers = named_layers(setting.source, settings.layers)
        self._candidates = setting.source.layer_candidates() or []
        if self._layers is None:
            self._count = chosen_count(len(self._candidates), settings.num_layers)
        self.target: Generator = copy.deepcopy(setting.source)
        self.target_ema: Generator = copy.deepcopy(setting.source).requires_grad_(False)
        self._trainable = [parameter for layer in self.target.layers().values() for parameter in layer.parameters()]
        self._optimizer = torch.optim.Adam(self._trainable, lr=settings.lr, betas=settings.betas)

    @property
    def fixed_layers(self) -> bool:
        """Whether the same layers train at every step."""
        return self._layers is not None

    def step(self, step: int) -> dict[str, Any]:
        """Draws the latents of a step and trains on them."""
        setting, settings = self._setting, self._setting.config.adapt
        samples = setting.team.share(range(self._batch))
        latents = setting.latents("adapt", step, samples)
        layer_samples = setting.team.share(range(settings.layer_batch))
        layer_latents = None if self._layers is not None else setting.latents("layers", step, layer_samples)
        update = self.update(latents, layer_latents, step, samples)
        return {**update.losses, "layers": update.layers}

    def update(self, latents: Tensor, layer_latents: Tensor | None, step: int, samples: Sequence[int]) -> AdaptUpdate:
        """One optimiser step.

        Args:
            latents: [n, *latent_shape], this process's, numbered `samples` in the whole batch.
            layer_latents: [k, *latent_shape], this process's for the choice of layers; None where they are fixed.
        """
        setting, settings = self._setting, self._setting.config.adapt
        self._method.begin_step(step, self.target)
        layers = self._layers if layer_latents is None else self.choose_layers(layer_latents, step)
        assert layers is not None
        train_only(self.target, layers)
        self._optimizer.zero_grad(set_to_none=True)
        totals, sources, targets, directions = [], [], [], []
        parts = zip(
            latents.chunk(settings.accumulate),
            torch.as_tensor(samples).chunk(settings.accumulate),
            strict=True,
        )
        for part, numbers in parts:
            pairs, losses, texts = self._losses(part, numbers.tolist(), step)
            share = len(part) / self._batch
            losses = {name: value * share for name, value in losses.items()}
            torch.stack(list(losses.values())).sum().backward()
            totals.append(torch.stack([value.detach() for value in losses.values()]))
            sources.append(pairs.source_images)
            targets.append(pairs.target_images.detach())
            directions.append(texts)
        setting.team.sum_gradients(self._trainable)
        values = setting.team.sum(torch.stack(totals).sum(dim=0)).tolist()
        reported = {"loss": sum(values), **dict(zip(losses, values, strict=True))}
        check_finite(reported, self.name, step)
        self._optimizer.step()
        self._average(settings.ema)
        texts = [rows[0] if len(rows[0]) == 1 else torch.cat(rows) for rows in map(list, zip(*directions, strict=True))]
        return AdaptUpdate(reported, layers, torch.cat(sources), torch.cat(targets), texts)

    def choose_layers(self, latents: Tensor, step: int) -> list[str]:
        """The layers that matter most for the target domain, best first (see `layers.choose_layers`)."""
        setting, settings = self._setting, self._setting.config.adapt
        self.target.requires_grad_(False)
        with torch.no_grad():
            codes = setting.source.codes(latents, setting.labels(len(latents)))
        noise_seed = setting.noise_seed("layers", step)
        samples = setting.team.share(range(settings.layer_batch))

        def loss(codes: Codes) -> Tensor:
            with setting.autocast():
                images = self.target.synthesize(
                    codes, noise=settings.noise, noise_seed=noise_seed, samples=samples
                ).float()
                features = [encoder.encode_image(images) for encoder in setting.encoders]
            terms = [
                weight * global_similarity(seen, wanted, encoder.logit_scale)
                for weight, seen, wanted, encoder in zip(
                    setting.config.weights, features, self._method.targets, setting.encoders, strict=True
                )
            ]
            return torch.stack(terms).sum() * len(codes) / settings.layer_batch

        return choose_layers(
            loss, codes, self._candidates, self._count, settings.layer_lr, settings.layer_steps, setting.team
        )

    def _losses(
        self, latents: Tensor, samples: Sequence[int], step: int
    ) -> tuple[Pairs, dict[str, Tensor], list[Tensor]]:
        """The pairs of some samples, their losses (means over them), their text directions."""
        setting, settings = self._setting, self._setting.config.adapt
        with torch.no_grad(), setting.autocast():
            labels = setting.labels(len(latents))
            codes = setting.source.codes(latents, labels)
            source_images = self._synthesize(setting.source, codes, "source", step, samples)
            source_features = self._encode(source_images, samples, step)
            contexts = setting.contexts(
                latents, labels, lambda: [encoder.encode_image(source_images) for encoder in setting.encoders]
            )
        with setting.autocast():
            target_images = self._synthesize(self.target, codes, "target", step, samples)
            target_features = self._encode(target_images, samples, step)
        pairs = Pairs(step, samples, contexts, source_images, target_images, source_features, target_features)
        texts = self._method.text_directions(contexts, step)
        views = max(1, settings.views)
        terms = [
            weight * directional(source, target, text if len(text) == 1 else text.repeat(views, 1))
            for weight, source, target, text in zip(
                setting.config.weights, source_features, target_features, texts, strict=True
            )
        ]
        return pairs, {"directional": torch.stack(terms).sum(), **self._method.extra_losses(pairs)}, texts

    def _synthesize(self, generator: Generator, codes: Codes, branch: str, step: int, samples: Sequence[int]) -> Tensor:
        # Random noise differs between source and target, as in the published programs.
        noise_seed = self._setting.noise_seed(branch, step)
        noise = self._setting.config.adapt.noise
        return generator.synthesize(codes, noise=noise, noise_seed=noise_seed, samples=samples).float()

    def _encode(self, images: Tensor, samples: Sequence[int], step: int) -> list[Tensor]:
        seed, views = self._setting.config.seed, self._setting.config.adapt.views
        seen = augment(images, views, seed, "views", step, samples=samples)
        return [encoder.encode_image(seen) for encoder in self._setting.encoders]

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        average: list[Tensor] = list(self.target_ema.parameters())
        now: list[Tensor] = list(self.target.parameters())
        torch._foreach_mul_(average, decay)
        torch._foreach_add_(average, torch._foreach_mul(now, 1 - decay))  # rounds as the published program does

    def state_dict(self) -> dict[str, Any]:
        """Target, its average, optimiser, and what the method learnt on the way."""
        return {
            "target": self.target.state_dict(),
            "target_ema": self.target_ema.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "method": self._method.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self.target.load_state_dict(state["target"])
        self.target_ema.load_state_dict(state["target_ema"])
        self._optimizer.load_state_dict(dict(state["optimizer"]))
        self._method.load_state_dict(state["method"])
