"""Measures as pure functions of features and tensors; `zeroshift.evaluation` draws the images that they are of."""

from .diversity import cosine_embedding, diversity, intra_cluster_distance, pairwise_distance
from .frechet import frechet_distance, gaussian, sifid
from .inception_score import inception_score
from .kernel import kernel_distance
from .pairs import clip_distance, direction_agreement, pair_similarity, paired_distance, structural_consistency

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
