"""The adapt stage: trains a copy of the source generator so that image pairs follow the text direction."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from zeroshift.clip.augmentations import augment
from zeroshift.clip.losses import clamp_images, directional, identity, out_of_range
from zeroshift.core.dtypes import at_least_float32
from zeroshift.core.rng import stream
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Codes, Generator
from zeroshift.methods.base import Method, Pairs, Stage, check_finite
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.source_images import SourceBatch
from zeroshift.networks.registry import load_network
from zeroshift.training.layer_selection import LayerChoice, named_layers, train_only

__all__ = ["AdaptUpdate", "Adaptation"]


@dataclass(frozen=True)
class AdaptUpdate:
    """Results of an adapt step for this process's samples, from before the update."""

    losses: dict[str, float]  # of the whole batch
    layers: list[str]  # trained at this step, best first
    source_images: Tensor  # [n, 3, H, W]
    target_images: Tensor  # [n, 3, H, W], the last ones if a code has several training images
    text_directions: list[Tensor]  # one per encoder, [n, E] or [1, E]


@dataclass(frozen=True)
class _Part:
    """A part of a batch: everything that comes from the source generator. See `Pairs` for the fields."""

    samples: Sequence[int]
    codes: Codes
    mapper_inputs: list[Tensor]
    source_images: Tensor
    source_features: list[Tensor]
    source_maps: list[list[Tensor]]
    text_directions: list[Tensor]
    target_images: Iterator[Tensor]  # training images of the target, with graph, each [n, 3, H, W]


class Adaptation(Stage):
    """Trains `target` with a method; its moving average `target_ema` is the adapted generator."""

    name = "adapt"
    title = "Adapting the generator"
    curves: ClassVar[Mapping[str, str]] = {
        "loss": "What the training minimizes, the sum of all its losses; lower is better within one run.",
        "directional": "How far the change from source to target image points away from the change of the text; 0 is "
        "full agreement.",
        "range": "How far pixel values leave the range that a file can store; 0 is best.",
        "l1": "Mean difference between the pixels of source and target image; a higher value means a larger change.",
        "identity": "How much the person in the target image differs from the one in the source image; 0 is the same.",
    }

    def __init__(self, context: TrainingContext, method: Method):
        self._context, self._method = context, method
        settings = self._settings = context.config.adapt
        self.steps = settings.steps
        self.target: Generator = copy.deepcopy(context.source)
        if settings.lora_rank:
            self.target.add_lora(settings.lora_rank, stream(context.config.seed, "lora").initial_seed())
        self.target_ema: Generator = copy.deepcopy(self.target).requires_grad_(False)
        if settings.gradient_checkpointing:
            self.target.checkpoint_gradients()
        fixed = named_layers(self.target, settings.layers)
        self.choice = LayerChoice(context, method, self.target) if fixed is None else None
        self._layers = fixed or []  # that train now
        layers = self.target.layers().values()
        self._trainable = list(dict.fromkeys(weight for layer in layers for weight in layer.parameters()))  # tied once
        self._reparametrization = method.reparametrize(self.target)
        moved = self._trainable if self._reparametrization is None else list(self._reparametrization.parameters())
        fused = context.distributed.device.type == "cuda"
        self._optimizer = torch.optim.Adam(moved, lr=settings.lr, betas=settings.betas, fused=fused or None)
        if settings.identity_weight:
            self._identity_features = _identity_network(settings.identity_network, context.distributed.device)

    def step(self, step: int) -> dict[str, Any]:
        """Draws the batch of a step and trains on it."""
        share, draw = self._context.distributed.share, self._context.source_images.draw
        batch = draw("adapt", step, share(range(self._settings.batch_size)), noise="source")
        layer_batch = None
        if self._chooses(step) and self._settings.layer_codes == "new":
            layer_batch = draw("layers", step, share(range(self._settings.layer_batch_size)))
        update = self.update(batch, layer_batch, step)
        return {**update.losses, "layers": update.layers}

    def update(self, batch: SourceBatch, layer_batch: SourceBatch | None, step: int) -> AdaptUpdate:
        """One optimizer step per training image of a code: one for all families, except diffusion models on request.

        Args:
            batch: this process's samples.
            layer_batch: this process's samples for the choice of layers; None if it needs none at this step.

        Raises:
            ZeroshiftError: if a loss is not a finite number; the weights are not changed then.
        """
        settings = self._settings
        self._method.begin_step(step, self.target)
        by_batch = self._chooses(step) and layer_batch is None
        if self.choice is not None and layer_batch is not None:
            self._layers = self.choice.from_new_codes(layer_batch, step)
        in_graph = self._layers
        if self.choice is not None and (by_batch or self._context.config.compile):
            in_graph = self.choice.candidates  # the same graph for any choice
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        parts = [self._source_part(part, step, by_batch) for part in batch.split(settings.grad_accumulation_steps)]

        history: list[dict[str, float]] = []
        for _ in range(self.target.num_training_images):
            self.target.zero_grad(set_to_none=True)
            self._optimizer.zero_grad(set_to_none=True)
            images, part_losses, joint = [], [], {}
            for part in parts:
                self._train_only(in_graph)
                pairs = self._pairs(part, step)
                share = len(part.samples) / settings.batch_size
                losses = {name: share * value for name, value in self._losses(pairs, part.text_directions).items()}
                joint = self._method.joint_losses(pairs)  # of the whole batch, which then has one part
                loss = torch.stack([*losses.values(), *joint.values()]).sum()
                if self.choice is not None and by_batch:
                    self._layers = self.choice.from_batch(part.codes, pairs.target_features)
                self._backward(loss, in_graph)
                part_losses.append(torch.stack([value.detach() for value in losses.values()]))
                images.append(pairs.target_images.detach())
            self._context.distributed.sum_gradients(self._trainable)
            self._fill_unchosen()
            summed = self._context.distributed.sum(torch.stack(part_losses).sum(dim=0))
            values = torch.cat([summed, *(value.detach()[None] for value in joint.values())]).tolist()
            terms = dict(zip([*losses, *joint], values, strict=True))
            history.append({"loss": sum(terms.values()), **terms})
            check_finite(history[-1], self.name, step, updated=step > 0 or len(history) > 1)
            self._optimizer_step()
            self._update_average(settings.ema_decay)

        mean = {name: sum(one[name] for one in history) / len(history) for name in history[0]}
        directions = [_joined(rows) for rows in zip(*(part.text_directions for part in parts), strict=True)]
        source_images = torch.cat([part.source_images for part in parts])
        return AdaptUpdate(mean, self._layers, source_images, torch.cat(images), directions)

    def _chooses(self, step: int) -> bool:
        """Whether the layers are chosen again at this step."""
        return self.choice is not None and (not self._layers or step % self._settings.layer_every == 0)

    @torch.no_grad()
    def _source_part(self, batch: SourceBatch, step: int, code_gradients: bool = False) -> _Part:
        """Everything computed by the source generator for some samples, and an iterator over the target's images."""
        context, mode, settings = self._context, self._settings.noise_mode, self._settings
        seen = (settings.augmentations, settings.clamp_images, tuple(map(tuple, self._method.map_levels())))
        with context.autocast():
            codes, images = batch.codes, batch.images
            features, maps = batch.once(seen, lambda: self._encode(images, batch.samples, step))
            mapper_inputs = batch.mapper_inputs
        if code_gradients:
            codes = codes.clone().requires_grad_()
        directions = self._method.directions(features, mapper_inputs, step)
        # Random noise differs between source and target, as in the published programs.
        seed = context.noise_seed("target", step)
        target_images = self.target.training_images(codes, noise_mode=mode, noise_seed=seed, samples=batch.samples)
        return _Part(batch.samples, codes, mapper_inputs, images, features, maps, directions, target_images)

    def _pairs(self, part: _Part, step: int) -> Pairs:
        """Pairs of the part's source images and the target's next training images."""
        context, mode = self._context, self._settings.noise_mode
        with context.autocast():
            images = at_least_float32(next(part.target_images))
            features, maps = self._encode(images, part.samples, step)

        @torch.no_grad()
        def features_of(generator: Generator) -> list[Tensor]:
            seed = context.noise_seed("other", step)
            with context.autocast():
                others = generator.synthesize(part.codes, noise_mode=mode, noise_seed=seed, samples=part.samples)
                return self._encode(at_least_float32(others), part.samples, step)[0]

        return Pairs(
            step, part.samples, part.mapper_inputs, part.source_images, images, part.source_features, features,
            part.source_maps, maps, features_of,
        )  # fmt: skip

    def _losses(self, pairs: Pairs, text_directions: Sequence[Tensor]) -> dict[str, Tensor]:
        """Weighted losses of some pairs, each averaged over them."""
        settings, copies = self._settings, max(1, self._settings.augmentations)
        terms = []
        for weight, source, target, text in zip(
            self._context.config.weights, pairs.source_features, pairs.target_features, text_directions, strict=True
        ):
            repeated = text if len(text) == 1 else text.repeat(copies, 1)
            terms.append(weight * directional(source, target, repeated, settings.directional_form))
        losses = {"directional": settings.directional_weight * torch.stack(terms).sum()}
        if settings.range_weight:
            losses["range"] = settings.range_weight * out_of_range(pairs.target_images)
        if settings.l1_weight:
            losses["l1"] = settings.l1_weight * (pairs.target_images - pairs.source_images).abs().mean()
        if settings.identity_weight:
            with torch.no_grad():
                source = self._identity_features(pairs.source_images)
            target = self._identity_features(pairs.target_images)
            losses["identity"] = settings.identity_weight * identity(source, target)
        return {**losses, **self._method.extra_losses(pairs)}

    def _encode(self, images: Tensor, samples: Sequence[int], step: int) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Features and maps of the augmented images, one entry per encoder, see `Pairs`."""
        seed, copies = self._context.config.seed, self._settings.augmentations
        seen = clamp_images(images) if self._settings.clamp_images else images
        augmented = augment(seen, copies, seed, "views", step, samples=samples)
        encoded = [
            encoder.encode_with_maps(augmented, levels)
            for encoder, levels in zip(self._context.encoders, self._method.map_levels(), strict=True)
        ]
        return [features for features, _ in encoded], [maps for _, maps in encoded]

    def _backward(self, loss: Tensor, in_graph: Sequence[str]) -> None:
        """Adds the gradients of the layers that train now; `in_graph` names those that had gradients enabled before."""
        self._train_only(self._layers)
        if in_graph == self._layers:
            loss.backward()
        else:  # computes nothing for the others
            loss.backward(inputs=[weight for weight in self._trainable if weight.requires_grad])

    def _fill_unchosen(self) -> None:
        """Gradients of zero for layers that are not chosen, if wanted; without one, Adam leaves their state alone."""
        if self.choice is None or self._settings.unchosen_gradient == "none" or self._reparametrization is not None:
            return
        for weight in self._trainable:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)

    def _train_only(self, layers: Sequence[str]) -> None:
        train_only(self.target, layers)
        if self._reparametrization is not None:
            trained = self._reparametrization()
            for name, parameter in self.target.named_parameters():
                parameter.requires_grad_(parameter.requires_grad and name in trained)

    def _learning_rate(self, step: int) -> float:
        """Geometric decay (or growth) to `lr_final`, as DiffusionCLIP's rate grows from pass to pass."""
        first, final = self._settings.lr, self._settings.lr_final
        return first if final is None else first * (final / first) ** (step / max(1, self.steps - 1))

    def _optimizer_step(self) -> None:
        """Updates the weights, or the parameters of the method's reparametrization through them."""
        if self._reparametrization is None:
            self._optimizer.step()
            return
        named = dict(self.target.named_parameters())
        trained = [
            (weight, named[name].grad)
            for name, weight in self._reparametrization().items()
            if named[name].requires_grad
        ]
        weights, gradients = zip(*trained, strict=True)
        torch.autograd.backward(weights, gradients)
        self._optimizer.step()
        with torch.no_grad():
            for name, weight in self._reparametrization().items():
                named[name].copy_(weight)

    @torch.no_grad()
    def _update_average(self, decay: float) -> None:
        average, now = _averaged(self.target_ema), _averaged(self.target)
        torch._foreach_mul_(average, decay)
        torch._foreach_add_(average, torch._foreach_mul(now, 1 - decay))  # rounds as the published program does

    def state_dict(self) -> dict[str, Any]:
        """Target, its moving average, optimizer, and the state of the method."""
        reparametrization = {} if self._reparametrization is None else self._reparametrization.state_dict()
        return {
            "target": self.target.state_dict(),
            "target_ema": self.target_ema.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "layers": self._layers if self.choice is not None else [],
            "method": self._method.state_dict(),
            "own": reparametrization,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.target.load_state_dict(state["target"])
        self.target_ema.load_state_dict(state["target_ema"])
        self._optimizer.load_state_dict(dict(state["optimizer"]))
        self._method.load_state_dict(state["method"])
        if self.choice is not None:
            self._layers = list(state.get("layers", []))  # older checkpoints have none: chosen at the next step
        if self._reparametrization is not None:
            self._reparametrization.load_state_dict(state["own"])


def _joined(rows: Sequence[Tensor]) -> Tensor:
    """Text directions of all parts: [n, E], or [1, E] for one common direction."""
    return rows[0] if len(rows[0]) == 1 else torch.cat(list(rows))


def _averaged(generator: Generator) -> list[Tensor]:
    """All weights, as in the published program; only the low-rank updates of a generator that has them."""
    named: list[tuple[str, Tensor]] = list(generator.named_parameters())
    return [weight for name, weight in named if "lora_" in name] or [weight for _, weight in named]


def _identity_network(name: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A network with identity features [N, E] of images [N, 3, H, W]."""
    network = load_network(name, device)
    if "features" not in network.provides:
        raise ZeroshiftError(f"The network {name!r} has no features, so it cannot compare identities. Use 'face'.")
    return network
