"""How readings of factors are held against the truth: the probe's loss, and an aid in training guide and judge."""

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
    """[N, 32]: one where the domain of the row shows the factor, zero elsewhere."""
    return torch.stack([_VISIBLE[domain] for domain in domains])


def factor_loss(outputs: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Mean loss over visible factors: 1 - R2 of scalars, cross-entropy over log(classes) of class factors.

    Both are about one for a network that knows nothing.

    Args:
        outputs: [N, NUM_READINGS]; positions: [N, 32], the true u; visible: [N, 32], zeros and ones.
    """
    parts = readings(outputs)
    losses = []
    for index, factor in enumerate(FACTORS):
        u = positions[:, index]
        if factor.is_class:
            loss = F.cross_entropy(parts[factor.name], class_weights(factor, u), reduction="none")
            losses.append(loss / torch.tensor(len(factor.classes)).log())
        else:
            losses.append(12 * (parts[factor.name] - u).square())  # u is uniform: its variance is 1 / 12
    return (torch.stack(losses, dim=1) * visible).sum() / visible.sum()
