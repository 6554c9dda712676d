"""What the recipes of the miniature diffusion models share: noise, the loss of a denoiser, and the learning rate."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["SCHEDULER", "levels", "rate_share", "velocity_loss"]

# As in DDPM, with steps up to pure noise; the network predicts the velocity (Salimans and Ho, 2022), which stays well
# conditioned at every level, so that few steps suffice to train it and to sample.
SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02,
    "prediction_type": "v_prediction", "clip_sample": False, "set_alpha_to_one": True, "timestep_spacing": "trailing",
}  # fmt: skip
WEIGHT_LIMIT = 5.0
DECAY = 0.4  # share of the steps, at the end, over which the rates fall


def levels(count: int, random: torch.Generator) -> Tensor:
    """Timesteps [count], uniform but spread evenly over a batch (Kingma et al., 2021, appendix I.1), shuffled."""
    spread = (torch.rand((), generator=random) + torch.arange(count) / count) % 1
    return (spread[torch.randperm(count, generator=random)] * SCHEDULER["num_train_timesteps"]).long()


def velocity_loss(
    predict: Callable[[Tensor, Tensor], Tensor], images: Tensor, alphas: Tensor, random: torch.Generator
) -> Tensor:
    """Mean weighted squared error of the predicted velocity v = sqrt(ᾱ) ε - sqrt(1 - ᾱ) x_0 at random levels.

    In terms of x_0 the weight is min(SNR + 1, 5), SNR = ᾱ / (1 - ᾱ): the SNR + 1 of Salimans and Ho (2022), equation
    11, limited as in min-SNR weighting (Hang et al., 2023), so that faint noise does not rule the gradient. The plain
    min-SNR would leave the noisiest levels, where it is decided what is in the picture, with hardly any weight.

    Args:
        predict: x_t [N, C, H, W] and timesteps [N] to the velocity, of the shape of x_t.
        images: x_0 [N, C, H, W].
        alphas: ᾱ_t of all timesteps.
        random: of noise and timesteps.
    """
    timesteps = levels(len(images), random)
    alpha = alphas[timesteps].view(-1, 1, 1, 1)
    noise = torch.randn(images.shape, generator=random)
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * images
    error = (predict(alpha.sqrt() * images + (1 - alpha).sqrt() * noise, timesteps) - velocity).square()
    weight = (WEIGHT_LIMIT * (1 - alpha)).clamp(max=1)  # min(SNR + 1, 5) / (SNR + 1), as 1 / (SNR + 1) = 1 - ᾱ
    return (weight * error).mean()


def rate_share(step: int, steps: int) -> float:
    """Warm-up, plateau, then a straight fall to zero: what comes before the fall does not depend on `steps`."""
    return min(1.0, (step + 1) / 50, (steps - step) / (DECAY * steps))
