"""The recipe of the diffusion model, a DDPM of photos of persons: `zeroshift miniature train diffusion`."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroshift.generators.checkpoints.diffusers import require_pipeline_folder, write_pipeline
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.miniature.exams.diffusion_exam import print_exam
from zeroshift.miniature.networks.encoders import weights_path
from zeroshift.miniature.training.denoising import SCHEDULER, DenoisingSettings, train_denoiser, velocity_loss
from zeroshift.miniature.training.loop import Precision, float32_norms
from zeroshift.miniature.training.optimizers import seeded
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = ["UNET", "train_diffusion"]

# Narrow at high resolutions, where computation is expensive. Attention only at 8x8. Widths are multiples of 16, because
# processors need the same time for 24 channels as for 32.
UNET: dict[str, Any] = {
    "sample_size": 64, "in_channels": 3, "out_channels": 3, "layers_per_block": 1,
    "block_out_channels": (16, 32, 96, 192), "norm_num_groups": 8, "attention_head_dim": 32,
    "down_block_types": ("DownBlock2D", "DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"),
}  # fmt: skip
EXAM_SEED, EXAM_PEOPLE = 80002, 128


def train_diffusion(
    out: Path = Path("training/diffusion"),
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
    """Train the diffusion model and write its moving average as a diffusers folder.

    The same command resumes an interrupted training.

    Examples:
      zeroshift miniature train diffusion --out training/diffusion --threads 2

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
        weights: Folder to write. Default: replace the shipped folder.

    Returns:
        The step reached.
    """
    torch.set_num_threads(threads)
    target = weights or weights_path("diffusion").with_suffix("")
    require_pipeline_folder(target)
    model = seeded(lambda: Diffusion(UNET, SCHEDULER), seed).to(memory_format=torch.channels_last)
    float32_norms(model)
    losses = partial(_losses, alphas=model.schedule.alphas)

    def save(network: Diffusion, step: int) -> None:
        write_pipeline(copy.deepcopy(network).half(), target)

    exam = render(sample_latents(EXAM_SEED, range(EXAM_PEOPLE)))
    reached = train_denoiser(
        model, [model], losses, save, purposes=("photos", "noise"), exam=(exam, EXAM_SEED),
        settings=DenoisingSettings(out, images, steps, batch, seed, rate, precision, minutes),
    )  # fmt: skip
    if reached == steps:
        print_exam(load_generator(target), EXAM_SEED)
    return reached


def _losses(network: Diffusion, images: Tensor, random: torch.Generator, *, alphas: Tensor) -> dict[str, Tensor]:
    images = images.contiguous(memory_format=torch.channels_last)
    return {"loss": velocity_loss(lambda x, t: network.unet(x, t).sample, images, alphas, random)}
