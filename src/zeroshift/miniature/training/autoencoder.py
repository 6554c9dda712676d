"""The recipe of the diffusion autoencoder: `zeroshift miniature train autoencoder`.

Encoder and U-Net are trained together with the U-Net's loss, as published (Preechakul et al., 2022). Deviation: noise
is added to z_sem before the U-Net, so that similar people have nearby z_sem and samples of a Gaussian are plausible.
"""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroshift.generators.checkpoints.files import load_generator, save_generator
from zeroshift.generators.diffusion.autoencoder import DiffusionAutoencoder
from zeroshift.io.outputs import require_writable
from zeroshift.miniature.exams.diffusion_exam import print_exam
from zeroshift.miniature.networks.encoders import weights_path
from zeroshift.miniature.training.denoising import SCHEDULER, DenoisingSettings, train_denoiser, velocity_loss
from zeroshift.miniature.training.loop import Precision, float32_norms
from zeroshift.miniature.training.optimizers import seeded
from zeroshift.miniature.training.photos import Photos
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = ["ENCODER", "UNET", "train_autoencoder"]

UNET: dict[str, Any] = {
    "resolution": 64, "channels": (16, 32, 64, 128), "z_dim": 64, "embed_dim": 128, "blocks": 1, "attention": (8,),
    "groups": 8, "time_dim": 64,
}  # fmt: skip
ENCODER: dict[str, Any] = {
    "resolution": 64, "channels": (16, 32, 64, 96, 128), "z_dim": 64, "blocks": 1, "attention": (8,), "groups": 8,
}  # fmt: skip
Z_NOISE = 0.2  # standard deviation of the noise on z_sem, relative to z_sem's root mean square
EXAM_SEED, EXAM_PEOPLE = 80003, 128
STATISTICS = 2048  # people from whose z_sem the mean and covariance are computed


def train_autoencoder(
    out: Path = Path("training/autoencoder"),
    *,
    images: Path = Path("training/generator/portraits"),
    steps: int = 3600,
    batch: int = 16,
    seed: int = 4,
    rate: float = 2e-3,
    precision: Precision = "bf16",
    minutes: float | None = None,
    threads: int = 1,
    weights: Path | None = None,
) -> int:
    """Train the diffusion autoencoder and write its moving average.

    The same command resumes an interrupted training.

    Examples:
      zeroshift miniature train autoencoder --out training/autoencoder --threads 2

    Args:
        out: Folder for the checkpoint and the log.
        images: Folder of rendered portraits, shared with the generator's recipe. Missing photos are rendered.
        steps: Training steps of `batch` photos. Can be changed until the learning rate decays, in the last 40 %.
        batch: Photos per step.
        seed: Seed of weights, photos and noise. Seed 4 has the same photos as the generator's recipe.
        rate: Peak learning rate.
        precision: Arithmetic of the network; bf16 is up to twice as fast on some processors and slower on others.
        minutes: Stop after so many minutes. The same command resumes.
        threads: Number of processor cores to use.
        weights: File to write. Default: replace the shipped file.

    Returns:
        The step reached.
    """
    torch.set_num_threads(threads)
    target = weights or weights_path("autoencoder")
    require_writable(target.parent)
    model = seeded(lambda: DiffusionAutoencoder(UNET, ENCODER, SCHEDULER), seed).to(memory_format=torch.channels_last)
    float32_norms(model)
    losses = partial(_losses, alphas=model.schedule.alphas)

    @torch.no_grad()
    def save(network: DiffusionAutoencoder, step: int) -> None:
        delivered = copy.deepcopy(network)
        people = Photos(images, seed).batch("statistics", 0, STATISTICS)
        delivered.fit_statistics(torch.cat([delivered.encoder(part) for part in torch.split(people, 64)]))
        recipe = {"recipe": "zeroshift.miniature.training.autoencoder", "seed": str(seed), "step": str(step)}
        save_generator(delivered.half(), target, recipe)

    exam = render(sample_latents(EXAM_SEED, range(EXAM_PEOPLE)))
    reached = train_denoiser(
        model, [model.encoder, model.unet], losses, save, purposes=("autoencoder", "codes"), exam=(exam, EXAM_SEED),
        settings=DenoisingSettings(out, images, steps, batch, seed, rate, precision, minutes),
    )  # fmt: skip
    if reached == steps:
        print_exam(load_generator(target), EXAM_SEED)
    return reached


def _losses(
    network: DiffusionAutoencoder, images: Tensor, random: torch.Generator, *, alphas: Tensor
) -> dict[str, Tensor]:
    """The U-Net's loss with noise on z_sem, and z_sem's root mean square."""
    images = images.contiguous(memory_format=torch.channels_last)
    z_sem = network.encoder(images)
    size = z_sem.square().mean().sqrt()
    noisy = z_sem + Z_NOISE * size * torch.randn(z_sem.shape, generator=random)
    return {"loss": velocity_loss(lambda x, t: network.unet(x, t, noisy), images, alphas, random), "size": size}
