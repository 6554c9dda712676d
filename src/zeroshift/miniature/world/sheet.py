"""Labeled sheets of rendered images: the same people in several domains, or one person with one factor varied."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from zeroshift.io.images import labeled_rows
from zeroshift.miniature.world.domains import SOURCE, Domain
from zeroshift.miniature.world.factors import FACTOR_INDEX, FACTORS, NUM_FACTORS, Factor
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = ["domain_sheet", "factor_latents", "factor_sheet"]

COLUMNS = 6  # values of a scalar factor; class factors have 2, 3 or 6 classes


def domain_sheet(domains: Sequence[Domain], num: int, seed: int, scale: int = 1) -> np.ndarray:
    """The people 0 … num - 1 of a seed, one row per domain: uint8 [H, W, 3], enlarged by `scale`."""
    latents = sample_latents(seed, range(num))
    return labeled_rows({domain.label: render(latents, domain, seed) for domain in domains}, scale)


def factor_sheet(domain: Domain = SOURCE, factors: Sequence[str] | None = None, scale: int = 1) -> np.ndarray:
    """One row per factor, in which it varies from low to high or from class to class: uint8 [H, W, 3].

    Args:
        factors: names; None means all that are visible in the domain.
    """
    names = domain.visible if factors is None else factors
    return labeled_rows({name.replace("_", " "): render(factor_latents(name), domain) for name in names}, scale)


def factor_latents(name: str) -> Tensor:
    """Latents [2 to 6, 32] that differ only in the factor `name`; other scalars are at 0.5, classes the most common.

    Positions are read from normalized latents, so changing one coordinate would move all others a little. One class
    factor compensates for that: moving it further into its first class does not change the image.
    """
    sink = FACTOR_INDEX["clothing_pattern" if name != "clothing_pattern" else "earrings"]
    index = FACTOR_INDEX[name]
    varied = _class_middles(FACTORS[index]) if FACTORS[index].is_class else torch.linspace(0.03, 0.97, COLUMNS)
    u = torch.full((len(varied), NUM_FACTORS), 0.5)
    for other, factor in enumerate(FACTORS):
        if factor.is_class:
            u[:, other] = _class_middles(factor)[torch.tensor(factor.shares).argmax()]
    u[:, index] = varied
    latents: Tensor = torch.special.ndtri(u)
    latents[:, sink] = 0
    latents[:, sink] = -(NUM_FACTORS - latents.square().sum(dim=1)).sqrt()
    return latents


def _class_middles(factor: Factor) -> Tensor:
    """The position u in the middle of each class."""
    shares = torch.tensor(factor.shares)
    return shares.cumsum(0) - shares / 2
