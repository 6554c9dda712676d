"""Measures as pure functions of features and tensors; `zeroshift.evaluation.evaluate` draws the images."""

from zeroshift.evaluation.metrics.diversity import (
    cosine_embedding,
    diversity,
    intra_cluster_distance,
    pairwise_distance,
)
from zeroshift.evaluation.metrics.frechet import frechet_distance, gaussian, sifid
from zeroshift.evaluation.metrics.inception_score import inception_score
from zeroshift.evaluation.metrics.kernel import kernel_distance
from zeroshift.evaluation.metrics.pairs import (
    clip_distance,
    direction_agreement,
    pair_similarity,
    paired_distance,
    structural_consistency,
)

__all__ = [
    "clip_distance",
    "cosine_embedding",
    "direction_agreement",
    "diversity",
    "frechet_distance",
    "gaussian",
    "inception_score",
    "intra_cluster_distance",
    "kernel_distance",
    "pair_similarity",
    "paired_distance",
    "pairwise_distance",
    "sifid",
    "structural_consistency",
]
