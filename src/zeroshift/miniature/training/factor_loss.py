"""Loss of factor readings against the true factors: for the probe, and auxiliary for the contrastive encoders."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from zeroshift.miniature.networks.encoders import readings
from zeroshift.miniature.world.domains import DOMAINS, Domain
from zeroshift.miniature.world.factors import FACTORS, class_weights

__all__ = ["factor_loss", "visibility"]

_VISIBLE = {
    domain: torch.tensor([factor.name in set(domain.visible) for factor in FACTORS], dtype=torch.float32)
    for domain in DOMAINS
}


def visibility(domains: Sequence[Domain]) -> torch.Tensor:
    """[N, 32]: 1 where the factor is visible in the domain of the row, else 0."""
    return torch.stack([_VISIBLE[domain] for domain in domains])


def factor_loss(outputs: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Mean loss over visible factors: 1 - R2 for scalars, cross-entropy / log(classes) for class factors.

    Both are about 1 for uninformed outputs.

    Args:
        outputs: [N, NUM_READINGS], see `readings`.
        positions: [N, 32], the true positions u.
        visible: [N, 32] of zeros and ones, see `visibility`.
    """
    parts = readings(outputs)
    losses = []
    for index, factor in enumerate(FACTORS):
        u = positions[:, index]
        if factor.is_class:
            loss = F.cross_entropy(parts[factor.name], class_weights(factor, u), reduction="none")
            losses.append(loss / torch.tensor(len(factor.classes)).log())
        else:
            losses.append(12 * (parts[factor.name] - u).square())  # u is uniform, so its variance is 1 / 12
    return (torch.stack(losses, dim=1) * visible).sum() / visible.sum()
