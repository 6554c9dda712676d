"""Stage 2: the source generator's copy is trained so that its images leave the source's in the text's direction."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zeroshift.clip.augmentations import augment
from zeroshift.clip.losses import directional, global_similarity, identity
from zeroshift.core.dtypes import at_least_float32
from zeroshift.core.rng import stream
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Codes, Generator, Latents
from zeroshift.methods.base import Method, Pairs, check_finite
from zeroshift.methods.context import TrainingContext
from zeroshift.training.layer_selection import choose_layers, chosen_count, named_layers, train_only

__all__ = ["AdaptUpdate", "Adaptation"]


@dataclass(frozen=True)
class AdaptUpdate:
    """What a step of stage 2 saw; images and directions are of this process's samples, before the update."""

    losses: dict[str, float]
    layers: list[str]  # trained at this step, best first
    source_images: Tensor  # [n, 3, H, W]
    target_images: Tensor  # [n, 3, H, W], the last ones where a code has several
    text_directions: list[Tensor]  # one an encoder, [n, E] or [1, E]


@dataclass(frozen=True)
class _Part:
    """Some samples of a step, as the source sees them; see `Pairs` for the fields."""

    samples: Sequence[int]
    codes: Codes
    mapper_inputs: list[Tensor]
    source_images: Tensor
    source_features: list[Tensor]
    texts: list[Tensor]  # their text directions
    pictures: Iterator[Tensor]  # of the target, with graph, each [n, 3, H, W]


class Adaptation:
    """Trains `target` under a method; `target_ema`, its moving average, is what is delivered."""

    name = "adapt"

    def __init__(self, context: TrainingContext, method: Method):
        self._context, self._method = context, method
        settings = context.config.adapt
        self.steps, self._batch = settings.steps, settings.batch_size
        self.target: Generator = copy.deepcopy(context.source)
        if settings.lora_rank:
            self.target.add_lora(settings.lora_rank, stream(context.config.seed, "lora").initial_seed())
        self.target_ema: Generator = copy.deepcopy(self.target).requires_grad_(False)
        self._layers = named_layers(self.target, settings.layers)
        self._candidates = self.target.layer_candidates() or []
        if self._layers is None:
            self._count = chosen_count(len(self._candidates), settings.num_layers)
        self._trainable = [parameter for layer in self.target.layers().values() for parameter in layer.parameters()]
        self._own = method.reparametrize(self.target)
        moved = self._trainable if self._own is None else list(self._own.parameters())
        self._optimizer = torch.optim.Adam(moved, lr=settings.lr, betas=settings.betas)
        if settings.identity_weight:
            self._recognise = _recogniser(settings.identity_network, context.distributed.device)

    @property
    def fixed_layers(self) -> bool:
        """Whether the same layers train at every step."""
        return self._layers is not None

    def step(self, step: int) -> dict[str, Any]:
        """Draws the latents of a step and trains on them."""
        context, settings = self._context, self._context.config.adapt
        samples = context.distributed.share(range(self._batch))
        latents = context.latents("adapt", step, samples)
        layer_samples = context.distributed.share(range(settings.layer_batch_size))
        layer_latents = None if self._layers is not None else context.latents("layers", step, layer_samples)
        update = self.update(latents, layer_latents, step, samples)
        return {**update.losses, "layers": update.layers}

    def update(self, latents: Tensor, layer_latents: Tensor | None, step: int, samples: Sequence[int]) -> AdaptUpdate:
        """One optimiser step for each picture that the target makes of a code: for all but some diffusion models, one.

        Args:
            latents: of `TrainingContext.latents`, this process's, numbered `samples` in the whole batch.
            layer_latents: this process's for the choice of layers; None where they are fixed.
        """
        context, settings = self._context, self._context.config.adapt
        self._method.begin_step(step, self.target)
        layers = self._layers if layer_latents is None else self.choose_layers(layer_latents, step)
        assert layers is not None
        train_only(self.target, layers)
        if self._own is not None:
            given = self._own()
            for name, parameter in self.target.named_parameters():
                parameter.requires_grad_(parameter.requires_grad and name in given)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate(step)
        numbers = torch.as_tensor(samples).chunk(settings.grad_accumulation_steps)
        parts = [
            self._part(some, theirs.tolist(), step)
            for some, theirs in zip(latents.chunk(settings.grad_accumulation_steps), numbers, strict=True)
        ]
        history = []
        for _ in range(self.target.num_training_images):
            self.target.zero_grad(set_to_none=True)
            self._optimizer.zero_grad(set_to_none=True)
            totals, targets = [], []
            for part in parts:
                pairs = self._pairs(part, step)
                share = len(part.samples) / self._batch
                losses = {name: value * share for name, value in self._losses(pairs, part.texts).items()}
                joint = self._method.joint_losses(pairs)
                torch.stack([*losses.values(), *joint.values()]).sum().backward()
                totals.append(torch.stack([value.detach() for value in losses.values()]))
                targets.append(pairs.target_images.detach())
            context.distributed.sum_gradients(self._trainable)
            values = context.distributed.sum(torch.stack(totals).sum(dim=0)).tolist()
            terms = dict(zip(losses, values, strict=True)) | {name: float(v.detach()) for name, v in joint.items()}
            history.append({"loss": sum(terms.values()), **terms})
            check_finite(history[-1], self.name, step)
            self._move()
            self._average(settings.ema_decay)
        reported = {name: sum(one[name] for one in history) / len(history) for name in history[0]}
        texts = [
            rows[0] if len(rows[0]) == 1 else torch.cat(rows)
            for rows in map(list, zip(*(part.texts for part in parts), strict=True))
        ]
        return AdaptUpdate(
            reported, layers, torch.cat([part.source_images for part in parts]), torch.cat(targets), texts
        )

    def _move(self) -> None:
        """An optimiser step: on the weights, or through them on what the method makes them from."""
        if self._own is None:
            self._optimizer.step()
            return
        named = dict(self.target.named_parameters())
        reached = [(weight, named[name].grad) for name, weight in self._own().items() if named[name].requires_grad]
        weights, gradients = zip(*reached, strict=True)
        torch.autograd.backward(weights, gradients)
        self._optimizer.step()
        with torch.no_grad():
            for name, weight in self._own().items():
                named[name].copy_(weight)

    def _rate(self, step: int) -> float:
        """The learning rate: it comes to `lr_last` geometrically, as DiffusionCLIP's grows from pass to pass."""
        settings = self._context.config.adapt
        if settings.lr_final is None:
            return settings.lr
        return settings.lr * (settings.lr_final / settings.lr) ** (step / max(1, self.steps - 1))

    def choose_layers(self, latents: Tensor, step: int) -> list[str]:
        """The layers that matter most for the target domain, best first (see `layers.choose_layers`)."""
        context, settings = self._context, self._context.config.adapt
        self.target.requires_grad_(False)
        with torch.no_grad():
            codes = context.codes(latents, context.labels(len(latents)))
        noise_seed = context.noise_seed("layers", step)
        samples = context.distributed.share(range(settings.layer_batch_size))

        def loss(codes: Codes) -> Tensor:
            with context.autocast():
                images = at_least_float32(
                    self.target.synthesize(
                        codes, noise_mode=settings.noise_mode, noise_seed=noise_seed, samples=samples
                    )
                )
                features = [encoder.encode_image(images) for encoder in context.encoders]
            terms = [
                weight * global_similarity(seen, wanted, encoder.logit_scale)
                for weight, seen, wanted, encoder in zip(
                    context.config.weights, features, self._method.targets, context.encoders, strict=True
                )
            ]
            return torch.stack(terms).sum() * len(codes) / settings.layer_batch_size

        return choose_layers(
            loss, codes, self._candidates, self._count, settings.layer_lr, settings.layer_steps, context.distributed
        )

    @torch.no_grad()
    def _part(self, latents: Latents, samples: Sequence[int], step: int) -> "_Part":
        """All that the source has to say of some samples, and the target's pictures of them, to come."""
        context, settings = self._context, self._context.config.adapt
        with context.autocast():
            labels = context.labels(len(latents))
            codes = context.codes(latents, labels)
            images = context.source_images(latents, codes, "source", step, samples)
            features = self._encode(images, samples, step)
            mapper_inputs = context.mapper_inputs(
                latents, labels, lambda: [encoder.encode_image(images) for encoder in context.encoders]
            )
        texts = self._method.text_directions(mapper_inputs, step)
        # Random noise differs between source and target, as in the published programs.
        noise_seed = context.noise_seed("target", step)
        pictures = self.target.training_images(
            codes, noise_mode=settings.noise_mode, noise_seed=noise_seed, samples=samples
        )
        return _Part(samples, codes, mapper_inputs, images, features, texts, pictures)

    def _pairs(self, part: "_Part", step: int) -> Pairs:
        """The part's samples with the target's next picture of each."""
        with self._context.autocast():
            images = at_least_float32(next(part.pictures))
            features = self._encode(images, part.samples, step)

        @torch.no_grad()
        def features_of(generator: Generator) -> list[Tensor]:
            noise, noise_seed = self._context.config.adapt.noise_mode, self._context.noise_seed("other", step)
            with self._context.autocast():
                seen = generator.synthesize(part.codes, noise_mode=noise, noise_seed=noise_seed, samples=part.samples)
                return self._encode(at_least_float32(seen), part.samples, step)

        return Pairs(
            step,
            part.samples,
            part.mapper_inputs,
            part.source_images,
            images,
            part.source_features,
            features,
            features_of,
        )

    def _losses(self, pairs: Pairs, texts: Sequence[Tensor]) -> dict[str, Tensor]:
        """The losses of some pairs, means over them."""
        settings = self._context.config.adapt
        views = max(1, settings.augmentations)
        terms = [
            weight
            * directional(source, target, text if len(text) == 1 else text.repeat(views, 1), settings.directional_form)
            for weight, source, target, text in zip(
                self._context.config.weights, pairs.source_features, pairs.target_features, texts, strict=True
            )
        ]
        losses = {"directional": settings.directional_weight * torch.stack(terms).sum()}
        if settings.l1_weight:
            losses["l1"] = settings.l1_weight * (pairs.target_images - pairs.source_images).abs().mean()
        if settings.identity_weight:
            with torch.no_grad():
                source = self._recognise(pairs.source_images)
            losses["identity"] = settings.identity_weight * identity(source, self._recognise(pairs.target_images))
        return {**losses, **self._method.extra_losses(pairs)}

    def _encode(self, images: Tensor, samples: Sequence[int], step: int) -> list[Tensor]:
        seed, views = self._context.config.seed, self._context.config.adapt.augmentations
        seen = augment(images, views, seed, "views", step, samples=samples)
        return [encoder.encode_image(seen) for encoder in self._context.encoders]

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        average, now = _averaged(self.target_ema), _averaged(self.target)
        torch._foreach_mul_(average, decay)
        torch._foreach_add_(average, torch._foreach_mul(now, 1 - decay))  # rounds as the published program does

    def state_dict(self) -> dict[str, Any]:
        """Target, its average, optimiser, and what the method learnt on the way."""
        return {
            "target": self.target.state_dict(),
            "target_ema": self.target_ema.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "method": self._method.state_dict(),
            "own": {} if self._own is None else self._own.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self.target.load_state_dict(state["target"])
        self.target_ema.load_state_dict(state["target_ema"])
        self._optimizer.load_state_dict(dict(state["optimizer"]))
        self._method.load_state_dict(state["method"])
        if self._own is not None:
            self._own.load_state_dict(state["own"])


def _averaged(generator: Generator) -> list[Tensor]:
    """All weights, as in the published program; of a generator with low-rank updates these alone, the others stay."""
    named: list[tuple[str, Tensor]] = list(generator.named_parameters())
    return [weight for name, weight in named if "lora_" in name] or [weight for _, weight in named]


def _recogniser(name: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A network whose features [N, E] of images [N, 3, H, W] tell identities apart."""
    from zeroshift.networks.registry import load_network

    network = load_network(name, device)
    if "features" not in network.provides:
        raise ZeroshiftError(f"The network {name!r} gives no features, so it cannot recognise. Take 'face'.")
    return network
