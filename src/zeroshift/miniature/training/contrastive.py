"""The contrastive recipe that guide and judge share; `train_guide` and `train_judge` give it their settings."""

import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import nn

from zeroshift.miniature.exams.measure import DomainExam, domain_report, retrieval_report
from zeroshift.miniature.networks.encoders import (
    NUM_READINGS,
    Judge,
    encode_tokens,
    load_weights,
    save_encoder,
    tokenize,
)
from zeroshift.miniature.training.augment import Augmentation, augment
from zeroshift.miniature.training.data import Batch, Blocks
from zeroshift.miniature.training.factor_loss import factor_loss, visibility
from zeroshift.miniature.training.loop import Precision, arithmetic, average, cosine_rate, run_training, step_stream
from zeroshift.miniature.training.optimisers import Optimisers, seeded
from zeroshift.miniature.world.captions import TEMPLATES, being_text, captions, labels, medium_text
from zeroshift.miniature.world.domains import BEINGS, MEDIA, SEEN, SOURCE

__all__ = ["ContrastiveSettings", "contrastive_loss", "train_contrastive"]

_MEDIUM = torch.tensor([list(MEDIA).index(domain.medium) for domain in SEEN])
_ALL = slice(None)
_BEING = torch.tensor([list(BEINGS).index(domain.being) for domain in SEEN])


@dataclass(frozen=True)
class ContrastiveSettings:
    """The numbers of one contrastive training; a resumed one must have the same."""

    augmentation: Augmentation
    seed: int
    steps: int
    warm_steps: int = 500  # first steps: plain images and the supervised head alone, at half the cost
    rate: float = 2e-3
    kernel_rate: float = 0.5  # Muon's rate as a part of AdamW's
    weight_decay: float = 0.05
    groups: int = 2  # blocks a batch: see `data`
    people: int = 10
    captioned: int = 72  # rows of a batch that are held against captions
    details: tuple[int, int] = (2, 8)  # factors named by a caption
    adversarial: int = 16  # rows of a batch that are attacked by one step along the sign of the gradient
    adversarial_size: float = 20 / 255  # largest change, in units of [-1, 1]
    grey: int = 0  # rows, neither captioned nor attacked, in grey or as its negative: they show beings by their shapes
    precision: Precision = "float32"
    start: str = ""  # file of weights to start from in place of fresh ones
    average_decay: float = 0.995
    domain_weight: float = 0.5
    word_weight: float = 0.25  # of the medium-only and being-only texts
    factor_weight: float = 4.0


def contrastive_loss(image_features: torch.Tensor, text_features: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """CLIP's symmetric cross-entropy (Radford et al., 2021) of unit features [N, E]; row i belongs to row i."""
    logits = scale * image_features @ text_features.T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _grey(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """[N, 3, H, W] in [-1, 1] with the luma of ITU-R BT.601 in all channels, or with its negative."""
    luma = (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1, keepdim=True)
    negative = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(negative, -luma, luma).expand_as(images)


def _label_texts(rng: random.Random) -> list[str]:
    """One text for each domain in SEEN, each in a random template, then one for each medium and each being alone."""
    texts = [rng.choice(TEMPLATES).format(rng.choice(labels(domain))) for domain in SEEN]
    return [*texts, *map(medium_text, MEDIA), *map(being_text, BEINGS)]


class _Head(nn.Module):
    """Reads factors, medium and being from image features [N, E]; of use in training only.

    The normalisation matters: fresh features are almost the same for all images, and what differs is what counts.
    """

    def __init__(self, embed_dim: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(embed_dim, affine=False)
        self.linear = nn.Linear(embed_dim, NUM_READINGS + len(MEDIA) + len(BEINGS))
        nn.init.zeros_(self.linear.weight)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(features))


def train_contrastive(
    model: CLIP | Judge,
    out: str | Path,
    blocks: Blocks,
    settings: ContrastiveSettings,
    *,
    weights: str | Path,
    minutes: float | None = None,
) -> int:
    """Trains `model`, or goes on where the training in folder `out` stopped, and writes its average to `weights`.

    Four terms: captions against images; images against the label texts of all seen domains; against the words of
    media and beings alone, so that unseen pairs are understood by their parts; and a linear reading of medium, being
    and all visible factors from the image feature, which teaches a small tower on few images what there is to see. The
    first steps have the last term alone. More steps than before extend a finished training.

    Returns:
        The step reached; `settings.steps` once training is complete.

    Raises:
        ZeroshiftError: if the file to start from is missing, damaged or of another model.
    """
    if settings.start:
        load_weights(model, settings.start)
    embed_dim = model.text_projection.shape[1] if isinstance(model, CLIP) else model.text.text_projection.shape[1]
    head = seeded(lambda: _Head(embed_dim), settings.seed)
    trained = [model, head]
    optimiser = Optimisers(trained, settings.weight_decay)
    ema = average(model, settings.average_decay)
    averaged = cast(Any, ema.module)  # of the type of `model`
    exam = DomainExam.make(seed=settings.seed + 1000, per_domain=6)

    def label_losses(
        image_features: torch.Tensor, texts: torch.Tensor, rows: torch.Tensor, coloured: torch.Tensor | slice = _ALL
    ) -> torch.Tensor:
        """What is not `coloured` shows a being, but no medium any more."""
        logits = model.logit_scale.exp() * image_features @ texts.T
        domain, medium, being = logits.split([len(SEEN), len(MEDIA), len(BEINGS)], dim=1)
        known = rows[coloured]
        words = F.cross_entropy(medium[coloured], _MEDIUM[known]) + F.cross_entropy(being, _BEING[rows])
        return settings.domain_weight * F.cross_entropy(domain[coloured], known) + settings.word_weight * words

    def attack(images: torch.Tensor, texts: torch.Tensor, rows: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
        """One step up the label losses within ± size: the fast gradient sign method (Goodfellow et al., 2015)."""
        images = images.detach().requires_grad_(True)
        features = F.normalize(model.encode_image(images), dim=-1)
        (gradient,) = torch.autograd.grad(label_losses(features, texts.detach(), rows), images)
        return (images + size * gradient.sign()).detach().clamp(-1, 1)

    def read(
        raw: torch.Tensor, batch: Batch, coloured: torch.Tensor | slice = _ALL
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        factors, medium, being = head(raw).split([NUM_READINGS, len(MEDIA), len(BEINGS)], dim=1)
        shown = visibility(batch.domains)[coloured]
        factor = factor_loss(factors[coloured], batch.positions[coloured], shown)
        parts = F.cross_entropy(medium[coloured], _MEDIUM[batch.indices[coloured]])
        parts = parts + F.cross_entropy(being, _BEING[batch.indices])
        return settings.factor_weight * factor + parts, {"factor": factor, "parts": parts}

    def match(batch: Batch, step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        key = f"{settings.seed}/{step}"
        with arithmetic("float32"):
            images = augment(batch.images, settings.augmentation, generator)
        images = images.contiguous(memory_format=torch.channels_last)
        label_features = F.normalize(encode_tokens(model, tokenize(_label_texts(random.Random(key)))), dim=-1)
        order = torch.randperm(len(images), generator=generator)
        if settings.adversarial:
            chosen = order[: settings.adversarial]
            size = settings.adversarial_size * torch.rand(len(chosen), 1, 1, 1, generator=generator)
            images[chosen] = attack(images[chosen], label_features, batch.indices[chosen], size)
        grey = order[settings.adversarial :][: settings.grey]
        images[grey] = _grey(images[grey], generator)
        coloured = torch.ones(len(images), dtype=torch.bool).index_fill(0, grey, False)
        raw = model.encode_image(images)
        image_features = F.normalize(raw, dim=-1)
        chosen = order[-settings.captioned :]
        low, high = settings.details
        texts = captions(
            batch.latents[chosen], [batch.domains[row] for row in chosen.tolist()],
            seed=key, num_details=lambda rng: rng.randint(low, high),
        )  # fmt: skip
        text_features = F.normalize(encode_tokens(model, tokenize(texts)), dim=-1)
        caption = contrastive_loss(image_features[chosen], text_features, model.logit_scale.exp())
        label = label_losses(image_features, label_features, batch.indices, coloured)
        loss, values = read(raw, batch, coloured)
        return loss + caption + label, {"caption": caption, "label": label, "scale": model.logit_scale.exp(), **values}

    def update(step: int) -> dict[str, torch.Tensor]:
        generator = step_stream(settings.seed, "batch", step)
        batch = blocks.batch(generator, blocks.available(step), settings.groups, settings.people)
        with arithmetic(settings.precision):
            if step < settings.warm_steps:
                images = batch.images.contiguous(memory_format=torch.channels_last)
                loss, values = read(model.encode_image(images), batch)
            else:
                loss, values = match(batch, step, generator)
        rate = cosine_rate(step, settings.steps, settings.rate, warmup=100 if settings.start else 30)
        optimiser.step(loss, rate, settings.kernel_rate * rate)
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)  # exp at most 100, as in CLIP
        ema.update_parameters(model)
        return {"loss": loss, **values}

    def evaluate(step: int) -> dict[str, float]:
        save_encoder(averaged.eval(), weights)
        with torch.no_grad():
            towers = averaged.encode_image, lambda texts: encode_tokens(averaged, tokenize(texts))
            found = retrieval_report(*towers, seed=settings.seed + 1000, domains=[SOURCE])
            return {**domain_report(exam, *towers, TEMPLATES), "retrieval": found[SOURCE.full_label]}

    fixed = {name: value for name, value in asdict(settings).items() if name != "steps"}
    fixed |= {"blocks": blocks.count, "block_seed": blocks.seed}
    model.train()
    reached = run_training(
        out, {"model": model, "head": head, **optimiser.parts, "average": ema}, update,
        steps=settings.steps, settings=fixed, minutes=minutes,
        save_every=250, evaluate=evaluate, evaluate_every=250,
    )  # fmt: skip
    save_encoder(averaged.eval(), weights)
    return reached
