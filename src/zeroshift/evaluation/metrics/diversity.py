"""Diversity: mean distances between images, over all pairs or within clusters around reference images.

The functions take embeddings whose squared Euclidean distance is the distance between images (LPIPS, or 1 minus the
cosine: `FeatureNetwork.embed`). The mean over all pairs then follows from two sums, in one pass:
Σ_{i<j} |x_i - x_j|² = n Σ |x_i|² - |Σ x_i|².
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from zeroshift.core.dtypes import float64
from zeroshift.networks.base import cosine_embedding

__all__ = ["diversity", "intra_cluster_distance", "pairwise_distance"]


def diversity(features: Tensor) -> float:
    """Mean cosine distance between the features [N, E] of different images."""
    return pairwise_distance([cosine_embedding(features)])


def pairwise_distance(batches: Iterable[Tensor]) -> float:
    """Mean squared Euclidean distance over all pairs of rows of the batches [n, D]; nan for fewer than two rows."""
    sums = _Sums()
    for batch in batches:
        sums.add(batch)
    return sums.mean_distance()


def intra_cluster_distance(batches: Iterable[Tensor], references: Tensor, size: int = 50) -> float:
    """Mean distance of pairs within a cluster, averaged over the clusters; with LPIPS, intra-LPIPS.

    Ojha et al., "Few-shot image generation via cross-domain correspondence", 2021, section 4.1. Each row belongs to the
    cluster of its nearest reference. As in the published evaluations, only the first `size` rows of a cluster count.
    Clusters of fewer than two rows are ignored; nan if no cluster is left.

    Args:
        batches: embeddings [n, D], as for `pairwise_distance`.
        references: embeddings [K, D] of the cluster centers.
        size: rows per cluster.
    """
    clusters = [_Sums() for _ in references]
    for batch in batches:
        nearest = torch.cdist(batch, references).argmin(dim=1)
        for index, cluster in enumerate(clusters):
            cluster.add(batch[nearest == index][: size - cluster.count])
    means = [cluster.mean_distance() for cluster in clusters if cluster.count > 1]
    return sum(means) / len(means) if means else float("nan")


class _Sums:
    """Running sums for the mean squared distance between rows, without storing the rows."""

    def __init__(self) -> None:
        self.count = 0
        self._squares = 0.0
        self._sum: Tensor | float = 0.0

    def add(self, rows: Tensor) -> None:
        if len(rows):
            x = float64(rows)
            self.count += len(x)
            self._squares += float(x.square().sum())
            self._sum = self._sum + x.sum(dim=0)

    def mean_distance(self) -> float:
        if self.count < 2:
            return float("nan")
        n = self.count
        return float(n * self._squares - torch.as_tensor(self._sum).square().sum()) / (n * (n - 1) / 2)
