"""IPL: one direction per image, from learned prompts (Guo et al., CVPR 2023)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from zeroshift.clip.losses import contrastive, domain_regularization, normalize
from zeroshift.clip.prompts import LatentMapper, PromptPair, base_texts
from zeroshift.config.schema import require
from zeroshift.config.settings import MethodOptions
from zeroshift.core.rng import stream
from zeroshift.io.images import small
from zeroshift.methods.base import Method, Stage, check_finite
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.source_images import SourceBatch

__all__ = ["IPL", "IPLOptions", "PromptLearning", "PromptStage", "PromptUpdate"]

BaseText = Literal["published", "label", "none"]


@dataclass(frozen=True)
class PromptStage:
    """The prompt stage, which trains the latent mapper. The defaults are the numbers of the published program."""

    steps: int = 300
    """Optimizer steps."""
    batch_size: int = 32
    """Images per step, over all processes; the contrastive loss compares them with each other."""
    lr: float = 0.05
    """Adam's learning rate."""
    num_context: int = 4
    """Learned context vectors per image."""
    context_init: str = "a photo of a"
    """Words of the base text, whose feature is added to that of a learned prompt."""
    keep_surplus: bool = False
    """Put the tokens of these words after the first `num_context` before the label, as the published program does."""
    domain_weight: float = 1.0
    """λ: weight of the domain regularization of prompts with the target label."""
    source_weight: float = 0.0
    """Weight of the same term for the source label, relative to λ."""
    base_text: BaseText = "published"
    """Base text: with the label in the prompt stage only (published), in both stages (label), or no text (none)."""

    def validate(self) -> None:
        """Checks the values.

        Raises:
            ZeroshiftError: naming the first setting with an invalid value.
        """
        for name, minimum in (
            ("steps", 1), ("batch_size", 2), ("num_context", 1), ("domain_weight", 0), ("source_weight", 0)
        ):  # fmt: skip
            value = getattr(self, name)
            require(value >= minimum, f"prompts.{name} is {value}; it must be at least {minimum}.")
        require(self.lr > 0, f"prompts.lr is {self.lr}; it must be positive.")
        require(
            self.base_text == "none" or bool(self.context_init.strip()),
            "prompts.context_init is empty. Give its words ('a photo of a'), or set prompts.base_text to 'none'.",
        )


@dataclass(frozen=True)
class IPLOptions(MethodOptions):
    """Settings of IPL."""

    prompts: PromptStage = field(default_factory=PromptStage)

    def validate(self) -> None:
        """See `PromptStage.validate`."""
        self.prompts.validate()


@dataclass(frozen=True)
class PromptUpdate:
    """What a prompt step computed, one entry per encoder, for this process's samples."""

    losses: dict[str, float]
    source_features: list[Tensor]  # learned prompts without base text, not normalized, [n, E]
    target_features: list[Tensor]


class PromptLearning(Stage):
    """The prompt stage: trains the latent mapper F, one per encoder, on images of the source generator."""

    name = "prompts"
    title = "Learning a prompt for each image"
    curves: ClassVar[Mapping[str, str]] = {
        "loss": "What the training minimizes, the weighted sum of its losses; lower is better within one run.",
        "contrastive": "How hard it is to tell which learned prompt belongs to which image; lower is better.",
        "domain": "How far the learned prompts with the target label are from the target label alone; lower is closer.",
        "source": "How far the learned prompts with the source label are from the source label alone; lower is closer.",
    }

    def __init__(
        self,
        context: TrainingContext,
        settings: PromptStage,
        mappers: Sequence[LatentMapper],
        pairs: Sequence[PromptPair],
    ):
        self._context, self._settings, self.pairs = context, settings, pairs
        self.steps = settings.steps
        self.mappers = nn.ModuleList(mappers)
        self._optimizer = torch.optim.Adam(self.mappers.parameters(), lr=settings.lr)
        labels = (context.config.source, context.config.target)
        self._labels = [[encoder.label_feature(label) for label in labels] for encoder in context.encoders]

    def step(self, step: int) -> dict[str, Any]:
        """Draws the batch of a step and trains on it."""
        samples = self._context.distributed.share(range(self._settings.batch_size))
        return self.update(self._context.source_images.draw(self.name, step, samples), step).losses

    def update(self, batch: SourceBatch, step: int) -> PromptUpdate:
        """One optimizer step on this process's samples.

        IPL, equations 3 to 5: loss = contrastive + domain_weight (target domain + source_weight source domain).

        Raises:
            ZeroshiftError: if a loss is not a finite number; the weights are not changed then.
        """
        context, settings = self._context, self._settings
        distributed = context.distributed
        share = len(batch.samples) / settings.batch_size
        with torch.no_grad(), context.autocast():
            image_features, mapper_inputs = batch.features, batch.mapper_inputs
        terms, learned = [], []
        for mapper, pair, inputs, images, labels, weight in zip(
            self.mappers, self.pairs, mapper_inputs, image_features, self._labels, context.config.weights, strict=True
        ):
            with context.autocast():
                learned.append(pair.learned(mapper(inputs)))
            source, target = pair.with_base(*learned[-1])
            # The contrastive term needs the whole batch; each process computes its share of the other two.
            whole = contrastive(distributed.gather(images), distributed.gather(source), pair.encoder.logit_scale)
            target_term = domain_regularization(target, labels[1]) * share
            source_term = domain_regularization(source, labels[0]) * share
            domain = settings.domain_weight * (target_term + settings.source_weight * source_term)
            terms.append(weight * torch.stack([whole, target_term, source_term, domain]))
        total = torch.stack(terms).sum(dim=0)  # [4]
        self._optimizer.zero_grad(set_to_none=True)
        (total[0] + total[3]).backward()
        distributed.sum_gradients(self.mappers.parameters())
        values = torch.cat([total[:1].detach(), distributed.sum(total[1:])]).tolist()
        losses = {"loss": values[0] + values[3], **dict(zip(("contrastive", "domain", "source"), values, strict=False))}
        check_finite(losses, self.name, step)
        self._optimizer.step()
        sources, targets = zip(*([one.detach() for one in pair] for pair in learned), strict=True)
        return PromptUpdate(losses, list(sources), list(targets))

    @torch.no_grad()
    def preview(self, num: int) -> tuple[Tensor, int]:
        """A table of the source images (rows) and the prompts learned from them (columns), for the first encoder.

        Darkness is the probability that the encoder assigns the image to the prompt, as in the contrastive loss. After
        the stage the diagonal is dark: each prompt describes its own image.
        """
        if self._context.image_bank is not None:
            num = min(num, len(self._context.image_bank.bank_codes) // self._context.distributed.size)
        batch = self._context.source_images.draw("preview", 0, range(num))
        pair = self.pairs[0]
        with self._context.autocast():
            source, _ = pair.with_base(*pair.learned(self.mappers[0](batch.mapper_inputs[0])))
        likely = (pair.encoder.logit_scale * normalize(batch.features[0]) @ normalize(source).T).softmax(dim=1)
        images = small(batch.images).cpu()
        cells = (1 - 2 * likely.float().cpu())[:, :, None, None, None].expand(-1, -1, *images.shape[1:])
        corner = torch.ones_like(images[:1])
        rows = [torch.cat([image[None], row]) for image, row in zip(images, cells, strict=True)]
        return torch.cat([corner, images, *rows]), num + 1

    def state_dict(self) -> dict[str, Any]:
        """Mappers and optimizer."""
        return {"mappers": self.mappers.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.mappers.load_state_dict(state["mappers"])
        self._optimizer.load_state_dict(dict(state["optimizer"]))


class IPL(Method):
    """Image-specific prompt learning."""

    Options: ClassVar[type[MethodOptions]] = IPLOptions

    def __init__(self, context: TrainingContext):
        super().__init__(context)
        config, prompts = context.config, self.options.prompts
        source, target = (
            base_texts(prompts.base_text, prompts.context_init, label) for label in (config.source, config.target)
        )
        mappers = []
        for index, (encoder, dim) in enumerate(zip(context.encoders, context.mapper_input_dims, strict=True)):
            seed = stream(config.seed, "mapper", index).initial_seed()
            mapper = LatentMapper(dim, prompts.num_context, encoder.width, seed)
            mappers.append(mapper.to(context.distributed.device))
        replaced = prompts.context_init if prompts.keep_surplus else ""
        learning, self.pairs = (
            [PromptPair(encoder, config.source, config.target, *texts, replaced) for encoder in context.encoders]
            for texts in zip(source, target, strict=True)
        )
        self._learning = PromptLearning(context, prompts, mappers, learning)
        # Raises for a label that is too long, before anything is written.
        self.text_directions(
            [torch.zeros(1, d, device=context.distributed.device) for d in context.mapper_input_dims], 0
        )

    @property
    def mappers(self) -> nn.ModuleList:
        """The latent mappers F, one per encoder."""
        return self._learning.mappers

    def stages(self) -> list[Stage]:
        """The prompt stage."""
        return [self._learning]

    @torch.no_grad()
    def text_directions(self, mapper_inputs: Sequence[Tensor], step: int) -> list[Tensor]:
        """normalize(normalize(E_T(M_t(w))) - normalize(E_T(M_s(w)))), [n, E] per encoder: IPL, equation 6."""
        directions = []
        for mapper, pair, inputs in zip(self.mappers, self.pairs, mapper_inputs, strict=True):
            with self.context.autocast():
                learned = pair.learned(mapper(inputs))
            source, target = pair.with_base(*learned)
            directions.append(normalize(normalize(target) - normalize(source)))
        return directions
