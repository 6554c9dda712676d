"""The contrastive recipe of the guidance encoder and the held-out evaluator, which use different settings."""

import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor, nn

from zeroshift.io.outputs import require_writable
from zeroshift.miniature.exams.measure import DomainExam, domain_report, retrieval_report
from zeroshift.miniature.networks.encoders import (
    NUM_READINGS,
    Evaluator,
    encode_tokens,
    load_weights,
    save_encoder,
    tokenize,
)
from zeroshift.miniature.training.augment import Augmentation, augment
from zeroshift.miniature.training.data import Batch, Blocks
from zeroshift.miniature.training.factor_loss import factor_loss, visibility
from zeroshift.miniature.training.loop import Precision, arithmetic, average, cosine_rate, run_training, step_stream
from zeroshift.miniature.training.optimizers import Optimizers, seeded
from zeroshift.miniature.world.captions import TEMPLATES, being_text, captions, labels, medium_text
from zeroshift.miniature.world.domains import BEINGS, MEDIA, SOURCE, TRAINED

__all__ = ["ContrastiveSettings", "contrastive_loss", "train_contrastive"]

Values = dict[str, Tensor]

# Indices of the medium and the being of every domain in TRAINED.
_MEDIUM = torch.tensor([list(MEDIA).index(domain.medium) for domain in TRAINED])
_BEING = torch.tensor([list(BEINGS).index(domain.being) for domain in TRAINED])
_ALL = slice(None)


@dataclass(frozen=True)
class ContrastiveSettings:
    """Settings of a contrastive training. Only `steps` may change when a training is resumed."""

    augmentation: Augmentation
    seed: int
    steps: int
    warm_steps: int = 500  # initial steps with plain images and only the factor loss, at half the cost
    rate: float = 2e-3  # AdamW's peak learning rate
    kernel_rate: float = 0.5  # Muon's learning rate, relative to AdamW's
    weight_decay: float = 0.05
    groups: int = 2  # blocks per batch, see `Blocks.batch`
    people: int = 10  # people per block
    captioned: int = 72  # images per batch that are compared with captions
    details: tuple[int, int] = (2, 8)  # smallest and largest number of factors in a caption
    adversarial: int = 16  # images per batch with an adversarial perturbation
    adversarial_size: float = 20 / 255  # its maximum, in units of the range [-1, 1]
    gray: int = 0  # further images per batch in grayscale or negative grayscale, to teach beings by their shapes
    precision: Precision = "float32"
    start: str = ""  # file of initial weights; "" means random weights
    average_decay: float = 0.995
    domain_weight: float = 0.5
    word_weight: float = 0.25  # of the texts that name only a medium or only a being
    factor_weight: float = 4.0


def contrastive_loss(image_features: Tensor, text_features: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy (Radford et al., 2021) of unit features [N, E]; image i belongs to text i."""
    logits = scale * image_features @ text_features.T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _gray(images: Tensor, generator: torch.Generator) -> Tensor:
    """Grayscale versions of images [N, 3, H, W] in [-1, 1] by their luma (ITU-R BT.601); half of them are negatives."""
    luma = (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1, keepdim=True)
    negative = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(negative, -luma, luma).expand_as(images)


def _label_texts(rng: random.Random) -> list[str]:
    """One text per domain in TRAINED, in a random template each, then one per medium and one per being."""
    texts = [rng.choice(TEMPLATES).format(rng.choice(labels(domain))) for domain in TRAINED]
    return [*texts, *map(medium_text, MEDIA), *map(being_text, BEINGS)]


class _Head(nn.Module):
    """Reads factors, medium and being from image features [N, E]; used in training only.

    The normalization is needed because the features of an untrained tower are almost the same for all images.
    """

    def __init__(self, embed_dim: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(embed_dim, affine=False)
        self.linear = nn.Linear(embed_dim, NUM_READINGS + len(MEDIA) + len(BEINGS))
        nn.init.zeros_(self.linear.weight)

    def forward(self, features: Tensor) -> Tensor:
        outputs: Tensor = self.linear(self.norm(features))
        return outputs


def train_contrastive(
    model: CLIP | Evaluator,
    out: str | Path,
    blocks: Blocks,
    settings: ContrastiveSettings,
    *,
    weights: str | Path,
    minutes: float | None = None,
) -> int:
    """Trains `model`, or resumes the training in folder `out`, and writes its moving average to `weights`.

    The loss has four terms: images against captions; images against the label texts of all training domains; images
    against texts that name only a medium or only a being, so that held-out pairs are recognized by their parts; and a
    linear reading of medium, being and all visible factors from the image feature, which guides a small tower with few
    images. The first steps use only the last term. A finished training can be extended with more steps.

    Returns:
        The step reached; `settings.steps` if the training is complete.

    Raises:
        ZeroshiftError: if the file of initial weights is missing, damaged or of another model.
    """
    require_writable(Path(weights).parent)
    training = _Training(model, blocks, settings, weights)
    fixed = {name: value for name, value in asdict(settings).items() if name != "steps"}
    fixed |= {"blocks": blocks.count, "block_seed": blocks.seed}
    model.train()
    reached = run_training(
        out, training.parts, training.update, steps=settings.steps, settings=fixed, minutes=minutes,
        save_every=250, evaluate=training.evaluate, evaluate_every=250,
    )  # fmt: skip
    training.save()
    return reached


class _Training:
    """The state of one contrastive training, and its losses."""

    def __init__(self, model: CLIP | Evaluator, blocks: Blocks, settings: ContrastiveSettings, weights: str | Path):
        if settings.start:
            load_weights(model, settings.start)
        self.model, self.blocks, self.settings, self.weights = model, blocks, settings, weights
        embed_dim = model.text_projection.shape[1] if isinstance(model, CLIP) else model.text.text_projection.shape[1]
        self.head = seeded(lambda: _Head(embed_dim), settings.seed)
        self.optimizer = Optimizers([model, self.head], settings.weight_decay)
        self.ema = average(model, settings.average_decay)
        self.averaged = cast(Any, self.ema.module)  # of the type of `model`
        self.exam = DomainExam.make(seed=settings.seed + 1000, per_domain=6)
        self.parts = {"model": model, "head": self.head, **self.optimizer.parts, "average": self.ema}

    def update(self, step: int) -> Values:
        """One step of the training."""
        settings = self.settings
        generator = step_stream(settings.seed, "batch", step)
        batch = self.blocks.batch(generator, self.blocks.available(step), settings.groups, settings.people)
        with arithmetic(settings.precision):
            if step < settings.warm_steps:
                images = batch.images.contiguous(memory_format=torch.channels_last)
                loss, values = self._reading_loss(self.model.encode_image(images), batch)
            else:
                loss, values = self._loss(batch, step, generator)
        rate = cosine_rate(step, settings.steps, settings.rate, warmup=100 if settings.start else 30)
        self.optimizer.step(loss, rate, settings.kernel_rate * rate)
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, 4.6052)  # exp at most 100, as in CLIP
        self.ema.update_parameters(self.model)
        return {"loss": loss, **values}

    def evaluate(self, step: int) -> dict[str, float]:
        """Writes the moving average and measures its domain accuracy and caption retrieval."""
        self.save()
        with torch.no_grad():
            towers = self.averaged.encode_image, lambda texts: encode_tokens(self.averaged, tokenize(texts))
            retrieval = retrieval_report(*towers, seed=self.settings.seed + 1000, domains=[SOURCE])
            return {**domain_report(self.exam, *towers, TEMPLATES), "retrieval": retrieval[SOURCE.full_label]}

    def save(self) -> None:
        """Writes the moving average."""
        save_encoder(self.averaged.eval(), self.weights)

    def _loss(self, batch: Batch, step: int, generator: torch.Generator) -> tuple[Tensor, Values]:
        """All four terms of the loss."""
        model, settings = self.model, self.settings
        key = f"{settings.seed}/{step}"
        label_features = F.normalize(encode_tokens(model, tokenize(_label_texts(random.Random(key)))), dim=-1)
        images, order, colored = self._images(batch, label_features, generator)
        raw = model.encode_image(images)
        image_features = F.normalize(raw, dim=-1)
        rows = order[-settings.captioned :]
        low, high = settings.details
        texts = captions(
            batch.latents[rows], [batch.domains[row] for row in rows.tolist()],
            seed=key, num_details=lambda rng: rng.randint(low, high),
        )  # fmt: skip
        text_features = F.normalize(encode_tokens(model, tokenize(texts)), dim=-1)
        caption = contrastive_loss(image_features[rows], text_features, model.logit_scale.exp())
        label = self._label_loss(image_features, label_features, batch.indices, colored)
        loss, values = self._reading_loss(raw, batch, colored)
        return loss + caption + label, {"caption": caption, "label": label, "scale": model.logit_scale.exp(), **values}

    def _images(
        self, batch: Batch, label_features: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Augmented images, some of them adversarial or gray.

        Returns:
            The images; a permutation of the rows that begins with the adversarial ones and then the gray ones; and
            a mask [N] that is False for the gray ones.
        """
        settings = self.settings
        with arithmetic("float32"):
            images = augment(batch.images, settings.augmentation, generator)
        images = images.contiguous(memory_format=torch.channels_last)
        order = torch.randperm(len(images), generator=generator)
        if settings.adversarial:
            rows = order[: settings.adversarial]
            size = settings.adversarial_size * torch.rand(len(rows), 1, 1, 1, generator=generator)
            images[rows] = self._attack(images[rows], label_features, batch.indices[rows], size)
        gray = order[settings.adversarial :][: settings.gray]
        images[gray] = _gray(images[gray], generator)
        colored = torch.ones(len(images), dtype=torch.bool).index_fill(0, gray, False)
        return images, order, colored

    def _attack(self, images: Tensor, texts: Tensor, indices: Tensor, size: Tensor) -> Tensor:
        """Fast gradient sign method (Goodfellow et al., 2015) on the label loss: one step of ± `size` [N, 1, 1, 1]."""
        images = images.detach().requires_grad_(True)
        features = F.normalize(self.model.encode_image(images), dim=-1)
        (gradient,) = torch.autograd.grad(self._label_loss(features, texts.detach(), indices), images)
        return (images + size * gradient.sign()).detach().clamp(-1, 1)

    def _label_loss(
        self, image_features: Tensor, texts: Tensor, indices: Tensor, colored: Tensor | slice = _ALL
    ) -> Tensor:
        """Cross-entropy over the label texts. Images that are not `colored` show a being but no medium."""
        settings = self.settings
        logits = self.model.logit_scale.exp() * image_features @ texts.T
        domain, medium, being = torch.split(logits, [len(TRAINED), len(MEDIA), len(BEINGS)], dim=1)
        truth = indices[colored]
        words = F.cross_entropy(medium[colored], _MEDIUM[truth]) + F.cross_entropy(being, _BEING[indices])
        return settings.domain_weight * F.cross_entropy(domain[colored], truth) + settings.word_weight * words

    def _reading_loss(self, features: Tensor, batch: Batch, colored: Tensor | slice = _ALL) -> tuple[Tensor, Values]:
        """Loss of the linear readings of factors, medium and being from image features [N, E]."""
        factors, medium, being = torch.split(self.head(features), [NUM_READINGS, len(MEDIA), len(BEINGS)], dim=1)
        visible = visibility(batch.domains)[colored]
        factor = factor_loss(factors[colored], batch.positions[colored], visible)
        parts = F.cross_entropy(medium[colored], _MEDIUM[batch.indices[colored]])
        parts = parts + F.cross_entropy(being, _BEING[batch.indices])
        return self.settings.factor_weight * factor + parts, {"factor": factor, "parts": parts}
