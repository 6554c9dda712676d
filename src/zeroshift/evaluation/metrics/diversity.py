"""Diversity: mean distances between images, all together or around the nearest of a few references.

The functions take embeddings in which the squared Euclidean distance is the distance between images (LPIPS, or one
minus the cosine: `FeatureNetwork.embed`). The mean over all pairs then follows from two sums, in one pass:
Σ_{i<j} |x_i - x_j|² = n Σ |x_i|² - |Σ x_i|².
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.core.dtypes import float64

__all__ = ["cosine_embedding", "diversity", "intra_cluster_distance", "pairwise_distance"]


def cosine_embedding(features: Tensor) -> Tensor:
    """Features [N, E] as vectors whose squared Euclidean distance is 1 - cos."""
    return F.normalize(features, dim=-1) / 2**0.5


def diversity(features: Tensor) -> float:
    """Mean cosine distance between the features [N, E] of different images."""
    return pairwise_distance([cosine_embedding(features)])


def pairwise_distance(batches: Iterable[Tensor]) -> float:
    """Mean squared Euclidean distance over all pairs of rows, which come in batches [n, D]; nan for fewer than two."""
    sums = _Sums()
    for batch in batches:
        sums.add(batch)
    return sums.mean_distance()


def intra_cluster_distance(batches: Iterable[Tensor], references: Tensor, size: int = 50) -> float:
    """The mean distance of pairs within a cluster, averaged over the clusters: with LPIPS, intra-LPIPS.

    Each row joins the cluster of its nearest reference; of a cluster the first `size` rows count, as in the published
    evaluations. Clusters of fewer than two rows have no pairs and do not count.
    Ojha et al., "Few-shot image generation via cross-domain correspondence", 2021, section 4.1.

    Args:
        batches: rows [n, D], as for `pairwise_distance`.
        references: [K, D].
    """
    clusters = [_Sums() for _ in references]
    for batch in batches:
        nearest = torch.cdist(batch, references).argmin(dim=1)
        for index, cluster in enumerate(clusters):
            cluster.add(batch[nearest == index][: size - cluster.count])
    means = [cluster.mean_distance() for cluster in clusters if cluster.count > 1]
    return sum(means) / len(means) if means else float("nan")


class _Sums:
    """What the mean squared distance between rows is made of, without the rows."""

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
