"""The miniature generator's mapping network, computed in closed form instead of trained."""

import math

import torch
from torch import Tensor

from zeroshift.core.rng import stream
from zeroshift.generators.stylegan.blocks import EqualLinear, Mapping, normalize_second_moment
from zeroshift.miniature.world.factors import BORDER, FACTORS, NUM_FACTORS, class_weights, positions

__all__ = ["factor_features", "solve_mapping"]


def factor_features(latents: Tensor) -> Tensor:
    """Factors of latents [N, 32], standardized to mean 0 and variance 1: [N, 63], a column per scalar and per class."""
    u = positions(latents)
    columns = []
    for index, factor in enumerate(FACTORS):
        if factor.is_class:
            shares = torch.tensor(factor.shares, dtype=u.dtype)
            columns.append((class_weights(factor, u[:, index]) - shares) / (shares * (1 - shares)).sqrt())
        else:
            columns.append((u[:, index : index + 1] - 0.5) * math.sqrt(12))
    return torch.cat(columns, dim=1)


@torch.no_grad()
def solve_mapping(mapping: Mapping, seed: int) -> None:
    """Sets the weights of a two-layer mapping network so that w holds `factor_features`, then random mixtures of them.

    Layer 0: each hidden unit has its kink at one knot of one latent coordinate, so that together they span the
    piecewise linear functions of each coordinate. Layer 1: least squares. For the factors, the target is chosen to
    cancel the final leaky ReLU; for the mixtures, the leaky ReLU makes them non-linear. `w_avg` is the mean of w.
    """
    random = stream(seed, "mapping")
    z = torch.randn(16384, NUM_FACTORS, generator=random)
    knots = [(index, knot) for index in range(NUM_FACTORS) for knot in _knots(index)]
    first, last = (layer for layer in mapping.children() if isinstance(layer, EqualLinear))
    directions = torch.zeros(len(first.bias), NUM_FACTORS)
    offsets = torch.zeros(len(first.bias))
    for unit, (index, knot) in enumerate(knots):
        directions[unit, index], offsets[unit] = 1, -knot
    first.weight.copy_(directions / first.weight_gain)
    first.bias.copy_(offsets / first.bias_gain)
    hidden = first(normalize_second_moment(z))

    features = factor_features(z)
    mixtures = torch.randn(features.shape[1], len(last.bias) - features.shape[1], generator=random)
    target = torch.cat([torch.where(features < 0, 5 * features, features), features @ mixtures * 0.2], dim=1)
    design = torch.cat([hidden, torch.ones(len(z), 1)], dim=1).double()
    ridge = 1e-6 * len(z) * torch.eye(design.shape[1], dtype=torch.double)
    solution = torch.linalg.solve(design.t() @ design + ridge, design.t() @ target.double() / math.sqrt(2)).float()
    last.weight.copy_(solution[:-1].t() / last.weight_gain)
    last.bias.copy_(solution[-1] / last.bias_gain)
    mapping.w_avg.copy_(mapping(z).mean(dim=0))


def _knots(index: int) -> list[float]:
    """Knots of the piecewise linear approximation of factor `index` over its normalized latent coordinate."""
    factor = FACTORS[index]
    if factor.is_class:
        cuts = torch.tensor(factor.shares, dtype=torch.double).cumsum(0)[:-1]
        edges = torch.cat([cuts - 0.8 * BORDER, cuts + 0.8 * BORDER])  # approximates the smoothstep by a linear ramp
    else:
        edges = torch.tensor([0.02, 0.12, 0.3, 0.5, 0.7, 0.88, 0.98], dtype=torch.double)
    knots: list[float] = torch.special.ndtri(edges).tolist()
    return knots
