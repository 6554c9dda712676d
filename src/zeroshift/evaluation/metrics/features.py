"""Inputs of a measure: one network's features of the samples and of the reference images."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zeroshift.core.batching import Fitting, Track, untracked
from zeroshift.networks.base import FeatureNetwork

__all__ = ["Features"]

_BATCH = 8  # initial number of LPIPS vectors in memory (32 MB each at 256 pixels); halved if memory runs out


@dataclass(frozen=True)
class Features:
    """Features of one network, on the CPU. Row i of `source` and of `target` come from the same latent."""

    network: FeatureNetwork
    labels: tuple[str, str]  # of the source and the target domain
    seed: int
    target: Tensor  # [N, ...], from the network's `forward`
    source: Tensor = field(default_factory=lambda: torch.empty(0))  # [N, ...], if the measure needs them
    reference: Tensor = field(default_factory=lambda: torch.empty(0))  # [M, ...], real images, if it needs them
    track: Track[Tensor] = untracked  # progress of `embedded`

    def embedded(self, features: Tensor) -> Iterator[Tensor]:
        """`network.embed` of features [N, ...], in batches as large as memory allows, on the network's device."""
        fitting = Fitting(lambda rows: self.network.embed(rows.to(self.network.device)), _BATCH)
        batches = [features[first : first + _BATCH] for first in range(0, len(features), _BATCH)]
        for batch in self.track(batches, len(batches), "Distances between images"):
            yield from fitting.batches(batch)
