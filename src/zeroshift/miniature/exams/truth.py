"""Measures of an adapted generator against the truth: the renderer's images of the same people in the target domain."""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.evaluation.metrics.diversity import diversity
from zeroshift.evaluation.metrics.frechet import frechet_distance, gaussian
from zeroshift.evaluation.metrics.pairs import paired_distance
from zeroshift.miniature.exams.measure import CHUNK, class_accuracy, in_chunks, label_features
from zeroshift.miniature.exams.pixels import psnr
from zeroshift.miniature.networks.encoders import ConvTower, Probe
from zeroshift.miniature.world.domains import DOMAINS, Domain
from zeroshift.miniature.world.factors import FACTOR_INDEX, FACTORS, positions
from zeroshift.miniature.world.renderer import render

__all__ = ["TruthExam", "factor_agreement", "map_distance", "variance_kept"]


def variance_kept(features: Tensor, truth: Tensor) -> float:
    """Fraction of the true variance between people that is kept, [N, E] both: 1 for the truth, 0 for a collapse.

    The variance of the unit features is measured along each principal axis of the true features and limited to the
    true variance, so that differences in other directions do not count.
    """
    a, b = (F.normalize(x.double(), dim=-1) for x in (features, truth))
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    variance, axes = torch.linalg.eigh(b.T @ b)
    reached = (a @ axes).square().sum(dim=0)
    return float(torch.minimum(reached, variance.clamp(min=0)).sum() / variance.sum())


def _maps(tower: ConvTower, images: Tensor) -> list[Tensor]:
    """Outputs of the stem and of every block, normalized to unit length along the channels."""
    x = F.relu(tower.norm(tower.stem(images.contiguous(memory_format=torch.channels_last))))
    maps = [x]
    for block in tower.blocks:
        maps.append(block(maps[-1]))
    return [F.normalize(each, dim=1) for each in maps]


@torch.no_grad()
def map_distance(tower: ConvTower, images: Tensor, truth: Tensor) -> float:
    """Mean perceptual distance between images and their true images, [N, 3, 64, 64] both, in a tower's feature maps.

    LPIPS without learned weights (Zhang et al., 2018, equation 1 with w = 1): the squared difference of unit channel
    vectors, averaged over positions and summed over maps.
    """
    total = 0.0
    for part, true in zip(torch.split(images, CHUNK), torch.split(truth, CHUNK), strict=True):
        for a, b in zip(_maps(tower, part), _maps(tower, true), strict=True):
            total += float((a - b).square().sum(dim=1).mean(dim=(1, 2)).sum())
    return total / len(images)


@torch.no_grad()
def factor_agreement(probe: Probe, images: Tensor, latents: Tensor, domain: Domain) -> dict[str, float]:
    """Agreement of the probe's readings of images [N, 3, 64, 64] with latents [N, 32], for visible factors.

    Returns:
        "classes": mean accuracy of class factors, away from their borders; "scalars": mean Pearson correlation of
        scalar factors, which is not affected by a constant offset.
    """
    u = positions(latents)
    outputs = [probe(part) for part in torch.split(images, CHUNK)]
    classes, scalars = [], []
    for name in domain.visible:
        factor, true = FACTORS[FACTOR_INDEX[name]], u[:, FACTOR_INDEX[name]].contiguous()
        read = torch.cat([output[name] for output in outputs])
        if factor.is_class:
            classes.append(class_accuracy(factor, read, true))
        else:
            correlation = torch.corrcoef(torch.stack([read, true]))[0, 1]
            scalars.append(torch.nan_to_num(correlation))
    return {"classes": float(torch.stack(classes).mean()), "scalars": float(torch.stack(scalars).mean())}


@dataclass(frozen=True)
class TruthExam:
    """People, their true images in the target domain, and the two evaluation networks, which never guide adaptations.

    Attributes:
        domain: the target domain.
        latents: [N, 32], the people.
        truth: [N, 3, 64, 64], their true images.
        evaluator, probe: see `networks.encoders`.
        labels: [84, E], the evaluator's label features of DOMAINS.
    """

    domain: Domain
    latents: Tensor
    truth: Tensor
    evaluator: Encoder
    probe: Probe
    labels: Tensor

    @classmethod
    @torch.no_grad()
    def make(
        cls, domain: Domain, latents: Tensor, evaluator: Encoder, probe: Probe, noise_seed: int = 0
    ) -> "TruthExam":
        """Renders the true images of people with latents [N, 32]."""
        labels = label_features(evaluator.encode_text, evaluator.templates, [each.label for each in DOMAINS])
        return cls(domain, latents, render(latents, domain, noise_seed), evaluator, probe, labels)

    @torch.no_grad()
    def measure(self, images: Tensor) -> dict[str, float]:
        """All measures of images [N, 3, 64, 64] of the same people, in the same order.

        Returns:
            "accuracy": fraction that the evaluator classifies as the target among all 84 domains; "diversity":
            relative to the true images; "distance": to the true image of the same person, in the evaluator's features;
            "map_distance", "psnr": to the same image, in the evaluator's feature maps and in pixels; "fd": Fréchet
            distance to the true images in the evaluator's unit features; "kept": see `variance_kept`; "classes",
            "scalars": see `factor_agreement`.
        """
        features = in_chunks(self.evaluator.encode_image, images)
        truth = in_chunks(self.evaluator.encode_image, self.truth)
        predicted = [DOMAINS[index] for index in (F.normalize(features, dim=-1) @ self.labels.T).argmax(dim=1).tolist()]
        return {
            "accuracy": sum(domain == self.domain for domain in predicted) / len(predicted),
            "diversity": diversity(features) / diversity(truth),
            "distance": paired_distance(features, truth),
            "map_distance": map_distance(cast(ConvTower, self.evaluator.image_tower), images, self.truth),
            "psnr": float(psnr(images, self.truth)),
            "fd": float(frechet_distance(*(gaussian(F.normalize(x, dim=-1)) for x in (features, truth)))),
            "kept": variance_kept(features, truth),
            **factor_agreement(self.probe, images, self.latents, self.domain),
        }
