"""The built-in measures. Each protocol is a function whose name states how the value is computed."""

import torch
from torch import Tensor

from zeroshift.evaluation.feature_rows import in_parts
from zeroshift.evaluation.metrics.diversity import intra_cluster_distance, pairwise_distance
from zeroshift.evaluation.metrics.features import Features
from zeroshift.evaluation.metrics.frechet import frechet_distance, gaussian, sifid
from zeroshift.evaluation.metrics.inception_score import inception_score
from zeroshift.evaluation.metrics.kernel import kernel_distance
from zeroshift.evaluation.metrics.pairs import (
    clip_distance,
    direction_agreement,
    pair_similarity,
    structural_consistency,
)
from zeroshift.evaluation.metrics.registry import Measure, Value

__all__ = [
    "CLIP_DISTANCE", "DIRECTION", "DIVERSITY", "FD", "FEW", "FID", "ID", "INTRA_DIVERSITY", "INTRA_LPIPS", "IS", "KD",
    "KID", "PAIRWISE_LPIPS", "SCS", "SIFID",
]  # fmt: skip

FEW = 10  # reference images in protocols of few-shot adaptation
_IS_SAMPLES = 1000  # with fewer samples, a split is too small to cover the classes


def is_10_splits(features: Features) -> Value:
    """Inception Score over 10 splits (Salimans et al., 2016)."""
    return inception_score(features.network.classify(features.target), splits=10)


def fd_all_references(features: Features) -> float:
    """Fréchet distance to real target images (Heusel et al., 2017); with Inception features, FID."""
    return float(frechet_distance(gaussian(features.target), gaussian(features.reference)))


def kd_100_subsets_of_at_most_1000(features: Features) -> Value:
    """Kernel distance to real target images over 100 subsets of 1,000, or of all if fewer (Binkowski et al., 2018)."""
    value, spread = kernel_distance(features.target, features.reference, seed=features.seed, subsets=100, size=1000)
    return value, spread or None


def sifid_10_references(features: Features) -> float:
    """Single-image FID against up to 10 reference images, mean over all pairs (Shaham et al., 2019).

    Uses FID's Inception at 299 pixels instead of ImageNet's at the images' own size, so the values are not comparable
    with those of SinGAN's program.
    """
    target, reference = ((each[:, 0], each[:, 1:]) for each in (features.target, features.reference))
    return sifid(target, reference)


def scs_same_latents(features: Features) -> float:
    """Structural consistency: agreement of the edge maps of source and target (RSSA, Xiao et al., 2022)."""
    pairs = in_parts(features.source, features.target)
    return float(torch.cat([structural_consistency(source, target) for source, target in pairs]).mean())


def id_same_latents(features: Features) -> float:
    """Identity: cosine of the face features of source and target (ArcFace, Deng et al., 2019)."""
    return float(pair_similarity(features.source, features.target).mean())


def diversity_all_pairs(features: Features) -> float:
    """Mean distance over all pairs of samples: LPIPS (Zhang et al., 2018), or 1 minus the cosine of features."""
    return pairwise_distance(features.embedded(features.target))


def intra_10_references_50_a_cluster(features: Features) -> float:
    """Mean distance of pairs with the same nearest of 10 references, 50 samples per cluster (Ojha et al., 2021)."""
    references = torch.cat(list(features.embedded(features.reference)))
    return intra_cluster_distance(features.embedded(features.target), references, size=50)


def clip_distance_to_label(features: Features) -> float:
    """1 minus the cosine of image and target label in CLIP (NADA, Gal et al., 2022, equation 1)."""
    (label,) = features.network.encode_labels(features.labels[1:])
    return float(clip_distance(features.target, label).mean())


def direction_same_latents(features: Features) -> float:
    """Cosine of image and text direction in CLIP, of pairs with one latent (NADA, Gal et al., 2022, equation 2)."""
    labels = features.network.encode_labels(features.labels)
    return float(direction_agreement(features.source, features.target, *labels).mean())


def _too_few_for_classes(samples: int, _: Tensor) -> str | None:
    if samples >= _IS_SAMPLES:
        return None
    return (
        f"an Inception Score of {samples} samples is not meaningful: it cannot exceed {samples // 10}, the size of a "
        f"split. Use {_IS_SAMPLES:,} or more (--num)."
    )


def _too_few_for_covariances(samples: int, reference: Tensor) -> str | None:
    width = reference.shape[1]
    if min(samples, len(reference)) > width:
        return None
    return (
        f"{samples:,} samples and {len(reference):,} reference images are too few for {width:,} features, so the value "
        f"is too high. Compare it only with values from equal numbers of images, or use more than {width:,} of each."
    )


_TARGET, _PAIR, _REAL = ("target",), ("source", "target"), ("target", "reference")
_CLIP = "open_clip:ViT-L-14/openai"  # not a default guidance encoder: the guiding network must not evaluate a run

FID = Measure(
    fd_all_references, needs="features", network="inception", sides=_REAL, samples=5000, better="lower",
    check=_too_few_for_covariances,
)  # fmt: skip
KID = Measure(
    kd_100_subsets_of_at_most_1000, needs="features", network="inception", sides=_REAL, samples=5000, better="lower"
)
IS = Measure(
    is_10_splits, needs="classes", network="inception", sides=_TARGET, samples=5000, better="higher",
    check=_too_few_for_classes,
)  # fmt: skip
SIFID = Measure(
    sifid_10_references, needs="maps", network="inception-maps", sides=_REAL, samples=1000, better="lower",
    references=FEW,
)  # fmt: skip
FD = Measure(
    fd_all_references, needs="features", network="dinov2", sides=_REAL, samples=5000, better="lower",
    any_network=True, check=_too_few_for_covariances,
)  # fmt: skip
KD = Measure(
    kd_100_subsets_of_at_most_1000, needs="features", network="dinov2", sides=_REAL, samples=5000, better="lower",
    any_network=True,
)  # fmt: skip
CLIP_DISTANCE = Measure(
    clip_distance_to_label, needs="texts", network=_CLIP, sides=_TARGET, samples=1000, better="lower", any_network=True
)
DIRECTION = Measure(
    direction_same_latents, needs="texts", network=_CLIP, sides=_PAIR, samples=1000, better="higher", any_network=True
)
DIVERSITY = Measure(
    diversity_all_pairs, needs="features", network="dinov2", sides=_TARGET, samples=1000, better="higher",
    any_network=True,
)  # fmt: skip
INTRA_DIVERSITY = Measure(
    intra_10_references_50_a_cluster, needs="features", network="dinov2", sides=_REAL, samples=1000, better="higher",
    references=FEW, any_network=True,
)  # fmt: skip
PAIRWISE_LPIPS = Measure(
    diversity_all_pairs, needs="perceptual", network="lpips", sides=_TARGET, samples=1000, better="higher"
)
INTRA_LPIPS = Measure(
    intra_10_references_50_a_cluster, needs="perceptual", network="lpips", sides=_REAL, samples=1000, better="higher",
    references=FEW,
)  # fmt: skip
SCS = Measure(scs_same_latents, needs="edges", network="sobel", sides=_PAIR, samples=500, better="higher")
ID = Measure(id_same_latents, needs="features", network="face", sides=_PAIR, samples=1000, better="higher")
