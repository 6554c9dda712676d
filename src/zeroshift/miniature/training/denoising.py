"""Shared parts of the recipes of both diffusion models: noise schedule, loss and training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroshift.miniature.training.loop import Precision, arithmetic, average, plateau_rate, run_training, step_stream
from zeroshift.miniature.training.optimizers import Optimizers
from zeroshift.miniature.training.photos import Photos

__all__ = ["SCHEDULER", "DenoisingSettings", "levels", "train_denoiser", "velocity_loss"]

# DDPM's schedule up to pure noise. The network predicts the velocity (Salimans and Ho, 2022), which is well conditioned
# at every noise level, so a few steps suffice for training and sampling.
SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02,
    "prediction_type": "v_prediction", "clip_sample": False, "set_alpha_to_one": True, "timestep_spacing": "trailing",
}  # fmt: skip
WEIGHT_LIMIT = 5.0
KERNEL_RATE = 0.5  # Muon's learning rate, relative to AdamW's
DECAY = 0.4  # final fraction of the steps in which the learning rates fall


def levels(count: int, random: torch.Generator) -> Tensor:
    """Random timesteps [count] in [0, 1000), spread evenly over the batch and shuffled.

    Low-discrepancy sampling of Kingma et al. (2021), "Variational diffusion models", appendix I.1.
    """
    spread = (torch.rand((), generator=random) + torch.arange(count) / count) % 1
    timesteps: int = SCHEDULER["num_train_timesteps"]
    return (spread[torch.randperm(count, generator=random)] * timesteps).long()


def velocity_loss(
    predict: Callable[[Tensor, Tensor], Tensor], images: Tensor, alphas: Tensor, random: torch.Generator
) -> Tensor:
    """Weighted mean squared error of the predicted velocity v = sqrt(ᾱ) ε - sqrt(1 - ᾱ) x_0 at random timesteps.

    In terms of x_0 the weight is min(SNR + 1, 5) with SNR = ᾱ / (1 - ᾱ): SNR + 1 is equation 11 of Salimans and Ho
    (2022); the limit is that of min-SNR weighting (Hang et al., 2023), so that faint noise does not dominate the
    gradient. Plain min-SNR weighting would almost ignore the noisiest levels, which determine the content.

    Args:
        predict: maps x_t [N, C, H, W] and timesteps [N] to the velocity [N, C, H, W].
        images: x_0 [N, C, H, W].
        alphas: ᾱ_t of all timesteps, [T].
        random: source of noise and timesteps.
    """
    timesteps = levels(len(images), random)
    alpha = alphas[timesteps].view(-1, 1, 1, 1)
    noise = torch.randn(images.shape, generator=random)
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * images
    error = (predict(alpha.sqrt() * images + (1 - alpha).sqrt() * noise, timesteps) - velocity).square()
    weight = (WEIGHT_LIMIT * (1 - alpha)).clamp(max=1)  # min(SNR + 1, 5) / (SNR + 1), as 1 / (SNR + 1) = 1 - ᾱ
    return (weight * error).mean()


@dataclass(frozen=True)
class DenoisingSettings:
    """Settings of a training; see the help of the recipes. `images` and `out` are folders."""

    out: Path
    images: Path
    steps: int
    batch: int
    seed: int
    rate: float
    precision: Precision
    minutes: float | None


def train_denoiser(
    model: nn.Module,
    trained: Sequence[nn.Module],
    losses: Callable[[Any, Tensor, torch.Generator], dict[str, Tensor]],
    save: Callable[[Any, int], None],
    *,
    settings: DenoisingSettings,
    purposes: tuple[str, str],
    exam: tuple[Tensor, int],
) -> int:
    """Trains a diffusion model on photos, or resumes its training, and returns the step reached.

    Args:
        trained: the parts of `model` whose parameters are trained.
        losses: maps a model, images and a random generator to values to log, among them the "loss".
        save: writes a model of a step; called with the moving average.
        purposes: names of the random streams of photos and of noise.
        exam: photos [N, 3, 64, 64] that the loss is evaluated on, and the seed of their noise.
    """
    photo_stream, noise_stream = purposes
    optimizer = Optimizers(trained, weight_decay=0.0)
    ema = average(model, 0.995)
    photos = Photos(settings.images, settings.seed)

    def update(step: int) -> dict[str, Tensor]:
        random = step_stream(settings.seed, noise_stream, step)
        with arithmetic(settings.precision):
            values = losses(model, photos.batch(photo_stream, step, settings.batch), random)
        rate = settings.rate * plateau_rate(step, settings.steps, decay=DECAY)
        optimizer.step(values["loss"], rate, KERNEL_RATE * rate)
        ema.update_parameters(model)
        return values

    @torch.no_grad()
    def evaluate(step: int) -> dict[str, float]:
        save(ema.module, step)
        images, seed = exam
        parts = [losses(ema.module, part, step_stream(seed, noise_stream, 0)) for part in torch.split(images, 64)]
        return {"exam": float(torch.stack([part["loss"] for part in parts]).mean())}

    fixed = {"seed": settings.seed, "batch": settings.batch, "rate": settings.rate, "precision": settings.precision}
    reached = run_training(
        settings.out, {"model": model, **optimizer.parts, "average": ema}, update, steps=settings.steps,
        settings=fixed, minutes=settings.minutes, evaluate=evaluate, save_every=200, evaluate_every=400,
    )  # fmt: skip
    save(ema.module, reached)
    return reached
