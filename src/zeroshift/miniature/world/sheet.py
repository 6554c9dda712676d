"""Sheets of labelled pictures: the same people in many domains, one factor varied at a time, generator beside truth."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from zeroshift.generators.base import Generator
from zeroshift.generators.diffusion.autoencoder import DiffusionAutoencoder
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.io.images import labelled_rows
from zeroshift.miniature.exams.diffusion_exam import sampled, twenty_steps
from zeroshift.miniature.world.domains import SOURCE, Domain
from zeroshift.miniature.world.factors import FACTOR_INDEX, FACTORS, NUM_FACTORS, Factor
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = ["diffusion_sheet", "domain_sheet", "factor_latents", "factor_sheet", "generator_sheet"]

COLUMNS = 6  # of a factor sheet; the number of classes is 2, 3 or 6


def domain_sheet(domains: Sequence[Domain], num: int, seed: int, scale: int = 1) -> np.ndarray:
    """The people 0 … num - 1 of a seed, a row a domain: uint8 [H, W, 3]."""
    latents = sample_latents(seed, range(num))
    return labelled_rows({domain.label: render(latents, domain, seed) for domain in domains}, scale)


def factor_sheet(domain: Domain = SOURCE, factors: Sequence[str] | None = None, scale: int = 1) -> np.ndarray:
    """One person with one factor varied a row, low to high or class by class; the factors visible in the domain."""
    names = domain.visible if factors is None else factors
    return labelled_rows({name.replace("_", " "): render(factor_latents(name), domain) for name in names}, scale)


def generator_sheet(generator: Generator, num: int, seed: int, scale: int = 1) -> np.ndarray:
    """The renderer's people and the generator's at the same latents, whole and truncated to 0.7."""
    latents = sample_latents(seed, range(num))
    with torch.no_grad():
        rows = {
            "renderer": render(latents),
            "generator": generator(latents),
            "truncated 0.7": generator(latents, truncation_psi=0.7),
        }
    return labelled_rows(rows, scale)


def diffusion_sheet(diffusion: Diffusion, autoencoder: DiffusionAutoencoder, num: int, seed: int) -> np.ndarray:
    """Random people of both models, and photos beside what the autoencoder makes of z_sem and x_T, and of z_sem."""
    photos = render(sample_latents(seed, range(num)))
    rows = {}
    for name, model in (("diffusion", diffusion), ("autoencoder", autoencoder)):
        with twenty_steps(model):
            rows[name] = sampled(model, seed, num)
    with twenty_steps(autoencoder), torch.no_grad():
        latents = autoencoder.encode_images(photos)
        noise = autoencoder.sample_latents(seed, range(num))
        z_sem_alone = torch.cat(
            [latents[:, : autoencoder.mapper_input_dim], noise[:, autoencoder.mapper_input_dim :]], dim=1
        )
        rows |= {"photo": photos, "reconstructed": autoencoder(latents), "from z_sem alone": autoencoder(z_sem_alone)}
    return labelled_rows(rows, 1)


def factor_latents(name: str) -> Tensor:
    """Latents [2 to 6, 32] that differ in the factor `name` alone, of a person of common classes and middling scalars.

    Latents are read on a sphere, so a change of one coordinate would move all others a little. A class factor at its
    first class takes up the difference: the farther out it lies, the surer the class.
    """
    sink = FACTOR_INDEX["clothing_pattern" if name != "clothing_pattern" else "earrings"]
    index = FACTOR_INDEX[name]
    varied = _class_middles(FACTORS[index]) if FACTORS[index].is_class else torch.linspace(0.03, 0.97, COLUMNS)
    u = torch.full((len(varied), NUM_FACTORS), 0.5)
    for other, factor in enumerate(FACTORS):
        if factor.is_class:
            u[:, other] = _class_middles(factor)[torch.tensor(factor.shares).argmax()]
    u[:, index] = varied
    latents = torch.special.ndtri(u)
    latents[:, sink] = 0
    latents[:, sink] = -(NUM_FACTORS - latents.square().sum(dim=1)).sqrt()
    return latents


def _class_middles(factor: Factor) -> Tensor:
    """The position u in the middle of each class."""
    shares = torch.tensor(factor.shares)
    return shares.cumsum(0) - shares / 2
