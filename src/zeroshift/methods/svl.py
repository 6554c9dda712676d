"""SVL: matches the distribution of images to that of variations of the target text (Jeon et al., ICCV 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.clip.losses import SAME, normalize, offset
from zeroshift.config.settings import MethodOptions
from zeroshift.core.rng import normal
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.methods.base import Method, Pairs, require_whole_batches
from zeroshift.methods.context import TrainingContext

__all__ = [
    "SVL", "SVLOptions", "first_moment", "learn_variations", "relation", "second_moment", "variation_loss",
]  # fmt: skip


@dataclass(frozen=True)
class SVLOptions(MethodOptions):
    """Settings of SVL. Weights that the paper does not state are 1."""

    variations: int = 6
    """Variations of the target text."""
    variation_steps: int = 2000
    """Optimizer steps for the variations."""
    variation_lr: float = 0.01
    """Adam's learning rate for the variations."""
    orthogonality_weight: float = 1.0
    """Weight of the term that makes the variations orthogonal to each other."""
    moment_weight: float = 1.0
    """Weight of the second moments; the weight of the means is 1."""
    relation_weight: float = 1.0
    """Weight of the term that preserves the similarities within a batch."""
    relation_scale: float = 20.0
    """Scale of the similarities before the softmax."""
    ewc_weight: float = 1.0
    """Weight of elastic weight consolidation."""
    fisher_samples: int = 64
    """Images from which the importance of each weight is estimated."""

    def validate(self) -> None:
        """Checks the values.

        Raises:
            ZeroshiftError: naming the first setting with an invalid value.
        """
        for name, least in (("variations", 2), ("variation_steps", 1), ("fisher_samples", 1)):
            if getattr(self, name) < least:
                raise ZeroshiftError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        for name in ("orthogonality_weight", "moment_weight", "relation_weight", "ewc_weight"):
            if getattr(self, name) < 0:
                raise ZeroshiftError(f"{name} is {getattr(self, name)}; it must be at least 0.")
        if self.variation_lr <= 0 or self.relation_scale <= 0:
            raise ZeroshiftError("variation_lr and relation_scale must be positive.")


def _varied(text: Tensor, free: Tensor) -> Tensor:
    """text + perturbations [K, E], which have the directions of `free` and the norm of the text's feature [E]."""
    varied: Tensor = text + text.norm() * normalize(free)
    return varied


def variation_loss(text: Tensor, free: Tensor, orthogonality_weight: float) -> Tensor:
    """Keeps variations close to the text (cosine) and their perturbations orthogonal to each other.

    mean_k(1 - cos(t + e_k, t)) + weight * mean_{j != k} cos(e_j, e_k)^2, with |e_k| = |t|.
    """
    consistency = (1 - F.cosine_similarity(_varied(text, free), text)).mean()
    cosines = normalize(free) @ normalize(free).T
    count = len(free)
    others = (cosines.square().sum() - count) / (count * (count - 1))
    return consistency + orthogonality_weight * others


def learn_variations(text: Tensor, start: Tensor, steps: int, lr: float, orthogonality_weight: float) -> Tensor:
    """Variations [K, E] of a text's feature [E], learned by Adam from perturbations [K, E]."""
    free = start.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([free], lr=lr)
    for _ in range(steps):
        loss = variation_loss(text, free, orthogonality_weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return _varied(text, free).detach()


def first_moment(images: Tensor, texts: Tensor) -> Tensor:
    """1 - cos of the means of image directions [N, E] and text directions [K, E].

    At the first step, where G_t = G_s, all image directions are zero. Their mean is then divided by one instead of its
    norm: otherwise the gradient would be so large that Adam's second moment blocks later steps (see `losses.offset`).
    """
    mean = images.mean(dim=0)
    length = mean.norm()
    return 1 - mean @ normalize(texts.mean(dim=0)) / torch.where(length < SAME, 1.0, length)


def second_moment(images: Tensor, texts: Tensor) -> Tensor:
    """|mean(d d^T) - mean(t t^T)|^2 (Frobenius) of image directions d [N, E] and text directions t [K, E].

    Computed from Gram matrices, <sum d d^T, sum t t^T> = sum (d . t)^2, without matrices [E, E].
    """

    def product(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T).square().mean()

    return product(images, images) - 2 * product(images, texts) + product(texts, texts)


def relation(source: Tensor, target: Tensor, scale: float) -> Tensor:
    """The change of the similarities within a batch; features [..., B, E], B at least 3.

    mean_i KL(softmax_j(scale cos(s_i, s_j)) | softmax_j(scale cos(t_i, t_j))), j != i; after Ojha et al., 2021.
    """

    def log_similarities(features: Tensor) -> Tensor:
        cosines = normalize(features) @ normalize(features).mT  # [..., B, B]
        batch = cosines.shape[-1]
        apart = ~torch.eye(batch, dtype=torch.bool, device=cosines.device)
        others: Tensor = (scale * cosines)[..., apart].unflatten(-1, (batch, batch - 1))
        return others.log_softmax(dim=-1)

    before, now = log_similarities(source), log_similarities(target)
    return (before.exp() * (before - now)).sum(dim=-1).mean()


class SVL(Method):
    """A distribution of directions instead of one, with elastic weight consolidation against forgetting."""

    Options: ClassVar[type[MethodOptions]] = SVLOptions
    curves: ClassVar[Mapping[str, str]] = {
        "mean": "How far the mean change of the images is from the mean of the text directions; lower is closer.",
        "moment": "How far the spread of the changes is from that of the text directions; lower is closer.",
        "relation": "How much the adaptation changes similarities between the images of a batch; 0 keeps them all.",
        "ewc": "How far weights that matter for the source images have moved; 0 means not at all.",
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # The moments replace the directional loss; consolidation replaces the choice of layers.
        "published": {"adapt.batch_size": 4, "adapt.layers": ("all",), "adapt.directional_weight": 0.0},
    }

    def __init__(self, context: TrainingContext):
        super().__init__(context)
        require_whole_batches(context.config, minimum=3)
        context.distributed.share(range(self.options.fisher_samples))  # raises early if they do not split
        self._directions = [self._spread(index) for index in range(len(context.encoders))]
        self._importance: dict[str, Tensor] = {}
        self._target: Generator | None = None

    def _spread(self, index: int) -> Tensor:
        """[K, E]: unit directions from the source label to the variations of the target label."""
        encoder, config, options = self.context.encoders[index], self.context.config, self.options
        with torch.no_grad():
            source, target = encoder.label_feature(config.source), normalize(encoder.label_feature(config.target))
        start = normal(target.shape, config.seed, "variations", index, samples=range(options.variations)).to(target)
        variations = learn_variations(
            target, start, options.variation_steps, options.variation_lr, options.orthogonality_weight
        )
        return normalize(normalize(variations) - normalize(source))

    def text_directions(self, mapper_inputs: Any, step: int) -> list[Tensor]:
        """The mean direction [1, E], one per encoder."""
        return [normalize(directions.mean(dim=0))[None] for directions in self._directions]

    def begin_step(self, step: int, target: Generator) -> None:
        """Stores G_t for the consolidation, and estimates the importance of the weights before the first step."""
        self._target = target
        if not self._importance and self.options.ewc_weight:
            self._importance = self.fisher()

    def fisher(self) -> dict[str, Tensor]:
        """Importance of each source weight for the images: the diagonal of the Fisher information, by name.

        The mean over latents of (d <G(w), r> / d weight)^2 with r ~ N(0, 1 / pixels). Up to scale, this is the
        importance of Kirkpatrick et al. (2017) if images are means of Gaussians; sum(F (change of weights)^2)
        approximates the mean squared change of pixel values. A resumed run recomputes it from the seed.
        """
        context, source = self.context, self.context.source
        samples = context.distributed.share(range(self.options.fisher_samples))
        names = [
            f"{layer}.{name}" for layer, module in source.layers().items() for name, _ in module.named_parameters()
        ]
        weights = [source.get_parameter(name).requires_grad_() for name in names]
        total = [torch.zeros_like(weight) for weight in weights]
        try:
            for sample in samples:
                latents = normal(source.latent_shape, context.config.seed, "fisher", samples=[sample]).to(source.device)
                images = source.synthesize(source.codes(latents, context.labels(1)))
                drawn = normal(images.shape[1:], context.config.seed, "fisher images", samples=[sample]).to(images)
                loss = (images * drawn).sum() / images.numel() ** 0.5
                for sum_of_squares, gradient in zip(
                    total, torch.autograd.grad(loss, weights, allow_unused=True), strict=True
                ):
                    if gradient is not None:
                        sum_of_squares += gradient.square()
        finally:
            source.requires_grad_(False)
        count = self.options.fisher_samples
        return {name: context.distributed.sum(part) / count for name, part in zip(names, total, strict=True)}

    def extra_losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """Weighted elastic weight consolidation: sum(F (weight - source weight)^2)."""
        if not self.options.ewc_weight or self._target is None:
            return {}
        now, source = dict(self._target.named_parameters()), dict(self.context.source.named_parameters())
        terms = [(part * (now[name] - source[name]).square()).sum() for name, part in self._importance.items()]
        return {"ewc": self.options.ewc_weight * torch.stack(terms).sum()}

    def joint_losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """Weighted losses of the whole batch: first and second moments of the directions, and relations."""
        terms, directions = [], self.target_domain.move(self._directions)
        for weight, source, target, texts in zip(
            self.context.config.weights, pairs.source_features, pairs.target_features, directions, strict=True
        ):
            source, target = self.gather_batch(source), self.gather_batch(target)  # [copies, B, E]
            moved = offset(source, target).flatten(0, 1)
            terms.append(
                weight
                * torch.stack(
                    [
                        first_moment(moved, texts),
                        self.options.moment_weight * second_moment(moved, texts),
                        self.options.relation_weight * relation(source, target, self.options.relation_scale),
                    ]
                )
            )
        return dict(zip(("mean", "moment", "relation"), torch.stack(terms).sum(dim=0).unbind(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """The directions."""
        return {"directions": self._directions}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self._directions = [directions.to(self.context.distributed.device) for directions in state["directions"]]
