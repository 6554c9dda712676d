"""Labeled sheets that compare the shipped generators with the renderer."""

import numpy as np
import torch

from zeroshift.generators.base import Generator
from zeroshift.generators.diffusion.autoencoder import DiffusionAutoencoder
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.io.images import labeled_rows
from zeroshift.miniature.exams.diffusion_exam import sampled, twenty_steps
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = ["diffusion_sheet", "generator_sheet"]


@torch.no_grad()
def generator_sheet(generator: Generator, num: int, seed: int, scale: int = 1) -> np.ndarray:
    """Images of renderer and generator for the same latents, also truncated to 0.7: uint8 [H, W, 3]."""
    latents = sample_latents(seed, range(num))
    rows = {
        "renderer": render(latents),
        "generator": generator(latents),
        "truncated 0.7": generator(latents, truncation_psi=0.7),
    }
    return labeled_rows(rows, scale)


@torch.no_grad()
def diffusion_sheet(diffusion: Diffusion, autoencoder: DiffusionAutoencoder, num: int, seed: int) -> np.ndarray:
    """Samples of both models; photos, and the autoencoder's images from z_sem and x_T and from z_sem alone."""
    photos = render(sample_latents(seed, range(num)))
    rows = {}
    for name, model in (("diffusion", diffusion), ("autoencoder", autoencoder)):
        with twenty_steps(model):
            rows[name] = sampled(model, seed, num)
    with twenty_steps(autoencoder):
        latents = autoencoder.encode_images(photos)
        noise = autoencoder.sample_latents(seed, range(num))
        z_dim = autoencoder.mapper_input_dim
        from_z_sem = autoencoder(torch.cat([latents[:, :z_dim], noise[:, z_dim:]], dim=1))
        rows |= {"photo": photos, "reconstructed": autoencoder(latents), "from z_sem alone": from_z_sem}
    return labeled_rows(rows, 1)
