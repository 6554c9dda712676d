"""Trains the miniature diffusion autoencoder: `python -m zeroshift.miniature.train_autoencoder`.

Encoder and U-Net are trained together by the U-Net's loss, as published. Here, noise is added to z_sem on its way, so
that nearby z_sem mean similar people and those that a Gaussian gives are plausible.
"""

import copy
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from zeroshift.generators.checkpoints.files import load_generator, save_generator
from zeroshift.generators.diffusion.autoencoder import DiffusionAutoencoder
from zeroshift.miniature.exams.diffusion_exam import print_exam
from zeroshift.miniature.networks.encoders import weights_path
from zeroshift.miniature.training.denoising import SCHEDULER, rate_share, velocity_loss
from zeroshift.miniature.training.loop import Precision, arithmetic, average, float32_norms, run_training, step_stream
from zeroshift.miniature.training.optimisers import Optimisers, seeded
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
Z_NOISE = 0.2  # standard deviation, as a part of z_sem's
KERNEL_RATE = 0.5  # Muon's learning rate as a part of AdamW's
EXAM_SEED, EXAM_PEOPLE = 80003, 128
STATISTICS = 2048  # people whose z_sem give its mean and covariance


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
    """Trains the diffusion autoencoder, or goes on where it stopped, and writes the weights of its moving average.

    Args:
        out: folder of checkpoint and log.
        images: folder of rendered portraits, shared with the generator's recipe; filled where photos are missing.
        steps: of `batch` photos; may be changed between calls, as the learning rate only falls at the end.
        batch: photos a step.
        seed: of weights, photos and noise. The photos of seed 4 are those of the generator's recipe.
        rate: peak learning rate.
        precision: arithmetic of the networks; bf16 is up to twice as fast on some processors, slower on others.
        minutes: stop after so many minutes; the same command goes on later.
        threads: processor cores to use.
        weights: where the result goes; the place of the shipped file if not given.

    Returns:
        The step reached.
    """
    torch.set_num_threads(threads)
    model = seeded(lambda: DiffusionAutoencoder(UNET, ENCODER, SCHEDULER), seed).to(memory_format=torch.channels_last)
    float32_norms(model)
    optimiser = Optimisers([model.encoder, model.unet], weight_decay=0.0)
    ema = average(model, 0.995)
    photos, alphas = Photos(images, seed), model.schedule.alphas
    exam = render(sample_latents(EXAM_SEED, range(EXAM_PEOPLE)))

    def losses(network: Any, pictures: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Of the denoiser, and the root mean square of z_sem."""
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        z_sem = network.encoder(pictures)
        size = z_sem.square().mean().sqrt()
        told = z_sem + Z_NOISE * size * torch.randn(z_sem.shape, generator=random)
        return velocity_loss(lambda x, t: network.unet(x, t, told), pictures, alphas, random), size

    def update(step: int) -> dict[str, Tensor]:
        with arithmetic(precision):
            loss, size = losses(model, photos.batch("autoencoder", step, batch), step_stream(seed, "codes", step))
        now = rate * rate_share(step, steps)
        optimiser.step(loss, now, KERNEL_RATE * now)
        ema.update_parameters(model)
        return {"loss": loss, "size": size}

    @torch.no_grad()
    def save(step: int) -> None:
        delivered: Any = copy.deepcopy(ema.module)
        people = photos.batch("statistics", 0, STATISTICS)
        delivered.standardise(torch.cat([delivered.encoder(part) for part in people.split(64)]))
        recipe = {"recipe": "zeroshift.miniature.training.autoencoder", "seed": str(seed), "step": str(step)}
        save_generator(delivered.half(), weights or weights_path("autoencoder"), recipe)

    @torch.no_grad()
    def evaluate(step: int) -> dict[str, float]:
        save(step)
        parts = [losses(ema.module, part, step_stream(EXAM_SEED, "codes", 0))[0] for part in exam.split(64)]
        return {"exam": float(torch.stack(parts).mean())}

    reached = run_training(
        out, {"model": model, **optimiser.parts, "average": ema}, update, steps=steps, minutes=minutes,
        settings={"seed": seed, "batch": batch, "rate": rate, "precision": precision},
        evaluate=evaluate, save_every=200, evaluate_every=400,
    )  # fmt: skip
    save(reached)
    if reached == steps:
        print_exam(load_generator(weights or weights_path("autoencoder")), EXAM_SEED)
    return reached


if __name__ == "__main__":
    tyro.cli(train_autoencoder)
