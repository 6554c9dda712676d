"""Measurements of guidance encoder, held-out evaluator and probe: pure functions of images and features, and exams.

An exam renders people that are not in the training data (other seeds), in all domains including the held-out pairs.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from zeroshift.miniature.networks.encoders import Probe, readings
from zeroshift.miniature.world.captions import captions
from zeroshift.miniature.world.domains import DOMAINS, HELD_OUT, SOURCE, TRAINED, Domain
from zeroshift.miniature.world.factors import BORDER, FACTOR_INDEX, FACTORS, Factor, positions
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = [
    "CHUNK", "CLASS", "R2", "DomainExam", "attack_transfer", "class_accuracy", "domain_accuracy", "domain_report",
    "factor_table", "in_chunks", "label_features", "pgd", "probe_report", "retrieval", "retrieval_report",
]  # fmt: skip

ImageEncoder = Callable[[torch.Tensor], torch.Tensor]  # images [N, 3, 64, 64] in [-1, 1] -> [N, E]
TextEncoder = Callable[[Sequence[str]], torch.Tensor]  # N texts -> [N, E]
CHUNK = 128  # images per call of an encoder


@dataclass(frozen=True)
class DomainExam:
    """The same people in all 84 domains, ordered by domain; N = 84 * per_domain.

    Attributes:
        images: [N, 3, 64, 64] in [-1, 1].
        latents: [N, 32].
        truth: [N], indices of the domains in DOMAINS.
    """

    images: torch.Tensor
    latents: torch.Tensor
    truth: torch.Tensor

    @classmethod
    def make(cls, seed: int, per_domain: int) -> "DomainExam":
        """Renders the people 0 … per_domain - 1 of a seed in every domain."""
        latents = sample_latents(seed, range(per_domain))
        images = torch.cat([render(latents, domain, seed) for domain in DOMAINS])
        truth = torch.arange(len(DOMAINS)).repeat_interleave(per_domain)
        return cls(images, latents.repeat(len(DOMAINS), 1), truth)


def in_chunks(encode: ImageEncoder, images: torch.Tensor) -> torch.Tensor:
    """The features of any number of images, computed in chunks."""
    return torch.cat([encode(part) for part in torch.split(images, CHUNK)])


def label_features(encode_text: TextEncoder, templates: Sequence[str], names: Sequence[str]) -> torch.Tensor:
    """Unit features [labels, E] of labels: the normalized mean of the unit features of all templates."""
    texts = [template.format(name) for name in names for template in templates]
    features = F.normalize(encode_text(texts), dim=-1).view(len(names), len(templates), -1)
    return F.normalize(features.mean(dim=1), dim=-1)


def domain_accuracy(image_features: torch.Tensor, labels: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """[N] of 0 and 1: whether the label feature with the highest cosine similarity is the true one.

    Args:
        image_features: [N, E].
        labels: [labels, E] unit features.
        truth: [N], indices of labels.
    """
    return ((F.normalize(image_features, dim=-1) @ labels.T).argmax(dim=1) == truth).float()


def domain_report(
    exam: DomainExam, encode_image: ImageEncoder, encode_text: TextEncoder, templates: Sequence[str]
) -> dict[str, float]:
    """Zero-shot accuracy among the short labels of all 84 domains, for the "seen" and the "held_out" pairs."""
    labels = label_features(encode_text, templates, [domain.label for domain in DOMAINS])
    right = domain_accuracy(in_chunks(encode_image, exam.images), labels, exam.truth)
    held_out = torch.tensor([domain in HELD_OUT for domain in DOMAINS])[exam.truth]
    return {"seen": right[~held_out].mean().item(), "held_out": right[held_out].mean().item()}


def retrieval(image_features: torch.Tensor, text_features: torch.Tensor) -> float:
    """Fraction of images whose own caption has the most similar feature; both [N, E], in the same order."""
    nearest = (F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).T).argmax(dim=1)
    return (nearest == torch.arange(len(nearest))).float().mean().item()


def retrieval_report(
    encode_image: ImageEncoder,
    encode_text: TextEncoder,
    *,
    seed: int,
    domains: Sequence[Domain] = TRAINED,
    candidates: int = 256,
    num_details: int = 12,
) -> dict[str, float]:
    """Top-1 image-to-caption retrieval among `candidates` people of one domain, by the domain's full label.

    Each caption names about `num_details` visible factors, or fewer if fewer can be named.
    """
    latents = sample_latents(seed, range(candidates))
    result = {}
    for domain in domains:
        texts = captions(latents, [domain] * candidates, seed=f"exam/{seed}", num_details=num_details)
        images = in_chunks(encode_image, render(latents, domain, seed))
        result[domain.full_label] = retrieval(images, encode_text(texts))
    return result


def pgd(
    encode_image: ImageEncoder,
    labels: torch.Tensor,
    images: torch.Tensor,
    target: torch.Tensor,
    *,
    size: float = 8 / 255,
    steps: int = 20,
) -> torch.Tensor:
    """Adversarial images classified as label `target` [N]; values change by at most `size` of the range [0, 1].

    Projected gradient descent in an L-infinity ball (Madry et al., 2018) on the cross-entropy at temperature 0.01.
    """
    reach = 2 * size  # images span [-1, 1]
    attacked = images.clone()
    for _ in range(steps):
        attacked.requires_grad_(True)
        logits = 100 * F.normalize(encode_image(attacked), dim=-1) @ labels.T
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, target, reduction="sum"), attacked)
        moved = attacked.detach() - reach / steps * 2.5 * gradient.sign()
        attacked = torch.minimum(torch.maximum(moved, images - reach), images + reach).clamp(-1, 1)
    return attacked


def attack_transfer(
    guidance: tuple[ImageEncoder, torch.Tensor],
    evaluator: tuple[ImageEncoder, torch.Tensor],
    *,
    seed: int,
    count: int = 128,
) -> dict[str, float]:
    """Adversarial perturbations of photos of persons, each toward a random other domain for the guidance encoder.

    Args:
        guidance, evaluator: image encoder and label features [84, E] of DOMAINS.

    Returns:
        "fooled": fraction of images that the guidance encoder classifies wrongly; "transferred": fraction of those
        that the evaluator also classifies wrongly.
    """
    source = DOMAINS.index(SOURCE)
    images = render(sample_latents(seed, range(count)), SOURCE, seed)
    rng = random.Random(seed)
    target = torch.tensor([rng.choice([i for i in range(len(DOMAINS)) if i != source]) for _ in range(count)])
    attacked = torch.cat(
        [
            pgd(guidance[0], guidance[1], a, b)
            for a, b in zip(torch.split(images, CHUNK), torch.split(target, CHUNK), strict=True)
        ]
    )
    truth = torch.full((count,), source)
    with torch.no_grad():
        fooled = domain_accuracy(in_chunks(guidance[0], attacked), guidance[1], truth) == 0
        both = fooled & (domain_accuracy(in_chunks(evaluator[0], attacked), evaluator[1], truth) == 0)
    return {"fooled": fooled.float().mean().item(), "transferred": (both.sum() / fooled.sum().clamp(min=1)).item()}


CLASS, R2 = "class accuracy", "R2"


def class_accuracy(factor: Factor, logits: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Accuracy of logits [N, classes] of a class factor at true positions u [N], those near class borders excluded."""
    cuts = torch.tensor(factor.shares).cumsum(0)[:-1]
    clear = ((u[:, None] - cuts).abs() > BORDER).all(dim=1)
    return (logits.argmax(dim=1) == torch.bucketize(u, cuts))[clear].float().mean()


@torch.no_grad()
def factor_table(probe: Probe, exam: DomainExam) -> dict[tuple[str, str], float]:
    """(full label of a domain, visible factor) -> R2 of a scalar; accuracy of classes, away from their borders."""
    parts = readings(in_chunks(probe.outputs, exam.images))
    u = positions(exam.latents)
    table = {}
    for index, domain in enumerate(DOMAINS):
        rows = exam.truth == index
        for name in domain.visible:
            factor, read, true = FACTORS[FACTOR_INDEX[name]], parts[name][rows], u[rows, FACTOR_INDEX[name]]
            if factor.is_class:
                table[domain.full_label, name] = class_accuracy(factor, read, true).item()
            else:
                # Relative to the variance of a uniform position, 1 / 12: stable for few people.
                table[domain.full_label, name] = 1 - 12 * (read - true).square().mean().item()
    return table


def probe_report(probe: Probe, exam: DomainExam, domains: Sequence[Domain] = TRAINED) -> dict[str, float]:
    """Mean class accuracy and mean R2 over all pairs of a domain and one of its visible factors."""
    names = {domain.full_label for domain in domains}
    table = {key: value for key, value in factor_table(probe, exam).items() if key[0] in names}
    chosen = {
        kind: [v for (_, n), v in table.items() if FACTORS[FACTOR_INDEX[n]].is_class == (kind == CLASS)]
        for kind in (CLASS, R2)
    }
    return {kind: sum(values) / len(values) for kind, values in chosen.items()}
