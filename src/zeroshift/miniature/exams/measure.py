"""What guide, judge and probe can do: pure functions of images and features, and the exams that the report prints.

An exam renders people that no training saw (other seeds), in all domains, kept-out pairs included.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from zeroshift.miniature.networks.encoders import Probe, readings
from zeroshift.miniature.world.captions import captions
from zeroshift.miniature.world.domains import DOMAINS, KEPT_OUT, SEEN, SOURCE, Domain
from zeroshift.miniature.world.factors import BORDER, FACTOR_INDEX, FACTORS, positions
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = [
    "CLASS", "R2", "DomainExam", "attack_transfer", "domain_accuracy", "domain_report", "factor_table",
    "label_features", "pgd", "probe_report", "retrieval", "retrieval_report",
]  # fmt: skip

ImageEncoder = Callable[[torch.Tensor], torch.Tensor]  # images [N, 3, 64, 64] in [-1, 1] -> [N, E]
TextEncoder = Callable[[Sequence[str]], torch.Tensor]  # N texts -> [N, E]
CHUNK = 128


@dataclass(frozen=True)
class DomainExam:
    """people in all 84 domains: images [84 * per_domain, 3, 64, 64], ordered by domain; truth [N] indexes DOMAINS."""

    images: torch.Tensor
    latents: torch.Tensor
    truth: torch.Tensor

    @classmethod
    def make(cls, seed: int, per_domain: int) -> "DomainExam":
        """The same `per_domain` people in every domain."""
        latents = sample_latents(seed, range(per_domain))
        images = torch.cat([render(latents, domain, seed) for domain in DOMAINS])
        truth = torch.arange(len(DOMAINS)).repeat_interleave(per_domain)
        return cls(images, latents.repeat(len(DOMAINS), 1), truth)


def in_chunks(encode: ImageEncoder, images: torch.Tensor) -> torch.Tensor:
    return torch.cat([encode(part) for part in images.split(CHUNK)])


def label_features(encode_text: TextEncoder, templates: Sequence[str], names: Sequence[str]) -> torch.Tensor:
    """[labels, E] unit features: the mean over templates of unit features, normalised again."""
    texts = [template.format(name) for name in names for template in templates]
    features = F.normalize(encode_text(texts), dim=-1).view(len(names), len(templates), -1)
    return F.normalize(features.mean(dim=1), dim=-1)


def domain_accuracy(image_features: torch.Tensor, labels: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """[N] of 0 and 1: whether the nearest label feature (cosine) is the true one, among all 84."""
    return ((F.normalize(image_features, dim=-1) @ labels.T).argmax(dim=1) == truth).float()


def domain_report(
    exam: DomainExam, encode_image: ImageEncoder, encode_text: TextEncoder, templates: Sequence[str]
) -> dict[str, float]:
    """Zero-shot domain accuracy by the domains' short labels, all 84 in the choice: "seen" and "kept_out" pairs."""
    labels = label_features(encode_text, templates, [domain.label for domain in DOMAINS])
    right = domain_accuracy(in_chunks(encode_image, exam.images), labels, exam.truth)
    hidden = torch.tensor([domain in KEPT_OUT for domain in DOMAINS])[exam.truth]
    return {"seen": right[~hidden].mean().item(), "kept_out": right[hidden].mean().item()}


def retrieval(image_features: torch.Tensor, text_features: torch.Tensor) -> float:
    """Share of images whose own caption is the nearest of all [N, E]."""
    nearest = (F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).T).argmax(dim=1)
    return (nearest == torch.arange(len(nearest))).float().mean().item()


def retrieval_report(
    encode_image: ImageEncoder,
    encode_text: TextEncoder,
    *,
    seed: int,
    domains: Sequence[Domain] = SEEN,
    candidates: int = 256,
    num_details: int = 12,
) -> dict[str, float]:
    """Image -> caption retrieval among `candidates` people of one domain, by domain label (top 1).

    Each caption names about `num_details` visible factors, fewer where the person has fewer that lie on one side.
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
    """Images changed to be taken for label `target` [N], each value by at most `size` of the range [0, 1].

    Projected gradient descent in the L-infinity ball (Madry et al., 2018) on cross-entropy at temperature 0.01.
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
    guide: tuple[ImageEncoder, torch.Tensor], judge: tuple[ImageEncoder, torch.Tensor], *, seed: int, count: int = 128
) -> dict[str, float]:
    """Faint patterns on photos of persons, each aimed at a random other domain by the guide's gradient.

    Args:
        guide, judge: image encoder and label features of DOMAINS [84, E].

    Returns:
        "fooled": share of images that the guide then takes for any other domain than the photo of a person;
        "transferred": share of those that the judge, too, no longer takes for it.
    """
    source = DOMAINS.index(SOURCE)
    images = render(sample_latents(seed, range(count)), SOURCE, seed)
    rng = random.Random(seed)
    target = torch.tensor([rng.choice([i for i in range(len(DOMAINS)) if i != source]) for _ in range(count)])
    attacked = torch.cat(
        [pgd(guide[0], guide[1], a, b) for a, b in zip(images.split(CHUNK), target.split(CHUNK), strict=True)]
    )
    truth = torch.full((count,), source)
    with torch.no_grad():
        fooled = domain_accuracy(in_chunks(guide[0], attacked), guide[1], truth) == 0
        both = fooled & (domain_accuracy(in_chunks(judge[0], attacked), judge[1], truth) == 0)
    return {"fooled": fooled.float().mean().item(), "transferred": (both.sum() / fooled.sum().clamp(min=1)).item()}


CLASS, R2 = "class accuracy", "R2"


@torch.no_grad()
def factor_table(probe: Probe, exam: DomainExam) -> dict[tuple[str, str], float]:
    """(domain's full label, factor) -> R2 of a visible scalar, accuracy of a visible class factor off its borders."""
    parts = readings(in_chunks(probe.outputs, exam.images))
    u = positions(exam.latents)
    table = {}
    for index, domain in enumerate(DOMAINS):
        rows = exam.truth == index
        for name in domain.visible:
            factor, read, true = FACTORS[FACTOR_INDEX[name]], parts[name][rows], u[rows, FACTOR_INDEX[name]]
            if factor.is_class:
                cuts = torch.tensor(factor.shares).cumsum(0)[:-1]
                clear = ((true[:, None] - cuts).abs() > BORDER).all(dim=1)
                right = read.argmax(dim=1) == torch.bucketize(true, cuts)
                table[domain.full_label, name] = right[clear].float().mean().item()
            else:
                # against the variance of a uniform position: stable for few people
                table[domain.full_label, name] = 1 - 12 * (read - true).square().mean().item()
    return table


def probe_report(probe: Probe, exam: DomainExam, domains: Sequence[Domain] = SEEN) -> dict[str, float]:
    """Mean class accuracy and mean R2 over all visible factors of `domains`, each (domain, factor) counted once."""
    names = {domain.full_label for domain in domains}
    table = {key: value for key, value in factor_table(probe, exam).items() if key[0] in names}
    chosen = {
        kind: [v for (_, n), v in table.items() if FACTORS[FACTOR_INDEX[n]].is_class == (kind == CLASS)]
        for kind in (CLASS, R2)
    }
    return {kind: sum(values) / len(values) for kind, values in chosen.items()}
