"""Measures of an adapted generator against the truth: what the same people should look like in the target domain."""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.evaluation.metrics.diversity import diversity
from zeroshift.evaluation.metrics.frechet import frechet_distance, gaussian
from zeroshift.evaluation.metrics.pairs import paired_distance
from zeroshift.miniature.exams.measure import CHUNK, in_chunks, label_features
from zeroshift.miniature.exams.pixels import psnr
from zeroshift.miniature.networks.encoders import ConvTower, Probe
from zeroshift.miniature.world.domains import DOMAINS, Domain
from zeroshift.miniature.world.factors import BORDER, FACTOR_INDEX, FACTORS, positions
from zeroshift.miniature.world.renderer import render

__all__ = ["TruthExam", "factor_agreement", "map_distance", "variance_kept"]


def variance_kept(features: Tensor, truth: Tensor) -> float:
    """How much of the variance between people is left, [N, E] both: 1 as in the truth, 0 after a full collapse.

    Along each principal axis on which the true people differ, their unit features have a variance; what the adapted
    ones reach of it counts, and no more than it: noise that makes pictures differ where people do not counts nothing.
    """
    a, b = (F.normalize(x.double(), dim=-1) for x in (features, truth))
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    variance, axes = torch.linalg.eigh(b.T @ b)
    reached = (a @ axes).square().sum(dim=0)
    return float(torch.minimum(reached, variance.clamp(min=0)).sum() / variance.sum())


def _maps(tower: ConvTower, images: Tensor) -> list[Tensor]:
    """Outputs of the stem and of every block, unit vectors along their channels."""
    x = F.relu(tower.norm(tower.stem(images.contiguous(memory_format=torch.channels_last))))
    seen = [x]
    for block in tower.blocks:
        seen.append(block(seen[-1]))
    return [F.normalize(each, dim=1) for each in seen]


@torch.no_grad()
def map_distance(tower: ConvTower, images: Tensor, truth: Tensor) -> float:
    """Mean perceptual distance of images to their true ones, [N, 3, 64, 64] both, in the feature maps of a tower.

    LPIPS without learned weights (Zhang et al., 2018, equation 1, w = 1): the squared difference of unit channel
    vectors, averaged over places, summed over maps.
    """
    total = 0.0
    for part, true in zip(images.split(CHUNK), truth.split(CHUNK), strict=True):
        for a, b in zip(_maps(tower, part), _maps(tower, true), strict=True):
            total += float((a - b).square().sum(dim=1).mean(dim=(1, 2)).sum())
    return total / len(images)


@torch.no_grad()
def factor_agreement(probe: Probe, images: Tensor, latents: Tensor, domain: Domain) -> dict[str, float]:
    """What the probe reads from images [N, 3, 64, 64] against the latents [N, 32], over the domain's visible factors.

    Returns:
        "classes": mean accuracy of class factors, away from their borders; "scalars": mean Pearson correlation of
        scalar factors (a correlation forgives the offset that a half-finished adaptation brings).
    """
    u = positions(latents)
    outputs = [probe(part) for part in images.split(128)]
    classes, scalars = [], []
    for name in domain.visible:
        factor, true = FACTORS[FACTOR_INDEX[name]], u[:, FACTOR_INDEX[name]].contiguous()
        read = torch.cat([output[name] for output in outputs])
        if factor.is_class:
            cuts = torch.tensor(factor.shares).cumsum(0)[:-1]
            clear = ((true[:, None] - cuts).abs() > BORDER).all(dim=1)
            classes.append((read.argmax(dim=1) == torch.bucketize(true, cuts))[clear].float().mean())
        else:
            both = torch.corrcoef(torch.stack([read, true]))[0, 1]
            scalars.append(torch.nan_to_num(both))
    return {"classes": float(torch.stack(classes).mean()), "scalars": float(torch.stack(scalars).mean())}


@dataclass(frozen=True)
class TruthExam:
    """People, their true target images, and the two models that judge; neither ever guided an adaptation.

    Attributes:
        domain: the target.
        latents: [N, 32].
        truth: [N, 3, 64, 64], the renderer's images of the people in the target domain.
        judge, probe: see `encoders`.
        labels: [84, E] the judge's label features of DOMAINS.
    """

    domain: Domain
    latents: Tensor
    truth: Tensor
    judge: Encoder
    probe: Probe
    labels: Tensor

    @classmethod
    @torch.no_grad()
    def make(cls, domain: Domain, latents: Tensor, judge: Encoder, probe: Probe, noise_seed: int = 0) -> "TruthExam":
        """Renders the truth of these people."""
        labels = label_features(judge.encode_text, judge.templates, [each.label for each in DOMAINS])
        return cls(domain, latents, render(latents, domain, noise_seed), judge, probe, labels)

    @torch.no_grad()
    def measure(self, images: Tensor) -> dict[str, float]:
        """All measures of images [N, 3, 64, 64], row i showing the person of latent i.

        Returns:
            accuracy: share that the judge takes for the target among all 84 domains; diversity: relative to that of
            the true images; distance: to the true image of the same person in the judge's embedding; map_distance,
            psnr: to the same true image, in the judge's feature maps and in pixels; fd: Fréchet distance of the
            judge's unit features to those of the true images; kept: see `variance_kept`; classes, scalars: see
            `factor_agreement`.
        """
        features = in_chunks(self.judge.encode_image, images)
        truth = in_chunks(self.judge.encode_image, self.truth)
        said = [DOMAINS[index] for index in (F.normalize(features, dim=-1) @ self.labels.T).argmax(dim=1).tolist()]
        return {
            "accuracy": sum(domain == self.domain for domain in said) / len(said),
            "diversity": diversity(features) / diversity(truth),
            "distance": paired_distance(features, truth),
            "map_distance": map_distance(cast(ConvTower, self.judge.image_tower), images, self.truth),
            "psnr": float(psnr(images, self.truth)),
            "fd": float(frechet_distance(*(gaussian(F.normalize(x, dim=-1)) for x in (features, truth)))),
            "kept": variance_kept(features, truth),
            **factor_agreement(self.probe, images, self.latents, self.domain),
        }
