"""What `zeroshift evaluate` measures, each by a function that is named by its protocol."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zeroshift.core.batching import Fitting, Track, untracked
from zeroshift.evaluation.metrics.diversity import intra_cluster_distance, pairwise_distance
from zeroshift.evaluation.metrics.frechet import frechet_distance, gaussian, sifid
from zeroshift.evaluation.metrics.inception_score import inception_score
from zeroshift.evaluation.metrics.kernel import kernel_distance
from zeroshift.evaluation.metrics.pairs import (
    clip_distance,
    direction_agreement,
    pair_similarity,
    structural_consistency,
)

__all__ = ["FEW", "MEASURES", "Measure", "Seen"]

FEW = 10  # reference images where the protocol is that of few-shot adaptation
_AT_ONCE = 8  # images whose LPIPS vectors (32 MB each at 256 pixels) are in memory together; fewer where it is small

Value = tuple[float, float | None]  # and its spread over splits or subsets, if the protocol has any


@dataclass(frozen=True)
class Seen:
    """What a network kept of the images: row i of source and target has one latent."""

    network: Any  # a FeatureNetwork
    labels: tuple[str, str]  # of source and target
    seed: int
    target: Tensor  # [N, ...] on the CPU, as the network's `forward` gives it
    source: Tensor = field(default_factory=lambda: torch.empty(0))  # [N, ...], if the measure asks for it
    reference: Tensor = field(default_factory=lambda: torch.empty(0))  # [M, ...], real images, if it asks for them
    track: Track = untracked  # shows how far `embedded` is

    def embedded(self, observed: Tensor) -> Iterator[Tensor]:
        """The network's vectors of what it kept, batch by batch, as memory allows, on its device."""
        device = next(self.network.parameters()).device
        fitting = Fitting(lambda rows: self.network.embed(rows.to(device)), _AT_ONCE)
        parts = observed.split(_AT_ONCE)
        for part in self.track(parts, len(parts), "Distances between images"):
            yield from fitting.batches(part)


@dataclass(frozen=True)
class Measure:
    """One measure: what it looks at, through what, and how many samples its protocol takes."""

    protocol: Callable[[Seen], Value]
    needs: str  # that the network must provide
    network: str  # the usual one
    sides: tuple[str, ...]  # "source", "target", "reference"
    samples: int
    better: str  # "higher" or "lower"
    references: int | None = None  # how many at most; None: all there are


def is_10_splits(seen: Seen) -> Value:
    """Inception Score over 10 splits (Salimans et al., 2016)."""
    return inception_score(seen.network.classify(seen.target), splits=10)


def fd_all_references(seen: Seen) -> Value:
    """Fréchet distance to real target images (Heusel et al., 2017); in Inception features, FID."""
    return float(frechet_distance(gaussian(seen.target), gaussian(seen.reference))), None


def kd_100_subsets_of_at_most_1000(seen: Seen) -> Value:
    """Kernel distance to real target images, 100 subsets of 1,000, or of all (Binkowski et al., 2018): FID's kin."""
    value, spread = kernel_distance(seen.target, seen.reference, seed=seen.seed, subsets=100, size=1000)
    return value, spread or None


def sifid_10_references(seen: Seen) -> Value:
    """Single-image FID against up to 10 reference images, mean over all pairs (Shaham et al., 2019).

    Through FID's Inception at 299 pixels, not ImageNet's at the images' own size: not to be compared with SinGAN's.
    """
    target, reference = ((each[:, 0], each[:, 1:]) for each in (seen.target, seen.reference))
    return sifid(target, reference), None


def scs_same_latents(seen: Seen) -> Value:
    """Structural consistency: agreement of edge maps of source and target of one latent (RSSA, Xiao et al., 2022)."""
    return float(structural_consistency(seen.source, seen.target).mean()), None


def id_same_latents(seen: Seen) -> Value:
    """Identity: cosine of face features of source and target of one latent (ArcFace, Deng et al., 2019)."""
    return float(pair_similarity(seen.source, seen.target).mean()), None


def diversity_all_pairs(seen: Seen) -> Value:
    """Mean distance between all pairs of samples: LPIPS (Zhang et al., 2018), or one minus the cosine of features."""
    return pairwise_distance(seen.embedded(seen.target)), None


def intra_10_references_50_a_cluster(seen: Seen) -> Value:
    """Mean distance of pairs that share the nearest of 10 reference images, 50 a cluster (Ojha et al., 2021)."""
    references = torch.cat(list(seen.embedded(seen.reference)))
    return intra_cluster_distance(seen.embedded(seen.target), references, size=50), None


def clip_distance_to_label(seen: Seen) -> Value:
    """One minus the cosine of image and target label in CLIP (NADA, Gal et al., 2022, equation 1)."""
    _, label = _label_features(seen)
    return float(clip_distance(seen.target, label).mean()), None


def direction_same_latents(seen: Seen) -> Value:
    """Cosine of image and text direction in CLIP, pairs of one latent (NADA, Gal et al., 2022, equation 2)."""
    return float(direction_agreement(seen.source, seen.target, *_label_features(seen)).mean()), None


def _label_features(seen: Seen) -> list[Tensor]:
    return [seen.network.encoder.label_feature(label).cpu() for label in seen.labels]


_CLIP = "open_clip:ViT-L-14/openai"  # not the usual guide: who guided may not judge
_TARGET, _PAIR, _REAL = ("target",), ("source", "target"), ("target", "reference")
MEASURES: dict[str, Measure] = {
    "fid": Measure(fd_all_references, "features", "inception", _REAL, 5000, "lower"),
    "kid": Measure(kd_100_subsets_of_at_most_1000, "features", "inception", _REAL, 5000, "lower"),
    "is": Measure(is_10_splits, "classes", "inception", _TARGET, 5000, "higher"),
    "sifid": Measure(sifid_10_references, "maps", "inception-maps", _REAL, 1000, "lower", FEW),
    "fd": Measure(fd_all_references, "features", "dinov2", _REAL, 5000, "lower"),
    "kd": Measure(kd_100_subsets_of_at_most_1000, "features", "dinov2", _REAL, 5000, "lower"),
    "clip-distance": Measure(clip_distance_to_label, "texts", _CLIP, _TARGET, 1000, "lower"),
    "direction": Measure(direction_same_latents, "texts", _CLIP, _PAIR, 1000, "higher"),
    "diversity": Measure(diversity_all_pairs, "features", "dinov2", _TARGET, 1000, "higher"),
    "intra-diversity": Measure(intra_10_references_50_a_cluster, "features", "dinov2", _REAL, 1000, "higher", FEW),
    "pairwise-lpips": Measure(diversity_all_pairs, "perceptual", "lpips", _TARGET, 1000, "higher"),
    "intra-lpips": Measure(intra_10_references_50_a_cluster, "perceptual", "lpips", _REAL, 1000, "higher", FEW),
    "scs": Measure(scs_same_latents, "edges", "sobel", _PAIR, 500, "higher"),
    "id": Measure(id_same_latents, "features", "face", _PAIR, 1000, "higher"),
}
