"""Deterministic DDIM (Song et al., "Denoising diffusion implicit models", 2021): noise levels and DDIM steps."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.diffusion.configs import schedule_config

__all__ = ["CLEAN", "NoiseSchedule"]

CLEAN = -1  # level without noise, below timestep 0
_ONLY_DDPM = ("sigmoid", "laplace")  # schedules that DDPMScheduler computes and DDIMScheduler does not


class NoiseSchedule(nn.Module):
    """The noise levels of a diffusion model, and DDIM steps between them.

    A level is a timestep or `CLEAN`. A trajectory is a list of levels: descending to generate, ascending to invert.

    Args:
        config: configuration of a DDIMScheduler of diffusers, or of another scheduler with discrete noise levels. The
            defaults of its class complete it.

    Raises:
        ZeroshiftError: if the scheduler is of another kind, has values out of range, uses dynamic thresholding, or
            reaches pure noise with a network that predicts the noise.
    """

    alphas: Tensor  # [T], the cumulative products ᾱ_t
    last_alpha: Tensor  # ᾱ of CLEAN

    def __init__(self, config: Mapping[str, Any]):
        super().__init__()
        with torch.device("cpu"):  # as numbers, also in a network without any, on the meta device
            self.scheduler = _ddim(schedule_config(config))
        self.config = self.scheduler.config
        self._check()
        self.register_buffer("alphas", self.scheduler.alphas_cumprod.clone(), persistent=False)
        self.register_buffer("last_alpha", self.scheduler.final_alpha_cumprod.clone(), persistent=False)

    def _check(self) -> None:
        alphas = self.scheduler.alphas_cumprod
        if self.config.thresholding:
            raise ZeroshiftError("The noise schedule uses dynamic thresholding, which DDIM inversion cannot undo.")
        if not bool(((alphas >= 0) & (alphas < 1)).all()):  # also if they are not numbers
            raise ZeroshiftError(
                "The noise schedule has levels without noise, or levels that are not numbers. Correct its betas."
            )
        if self.config.prediction_type == "epsilon" and bool((alphas == 0).any()):
            cause = " (rescale_betas_zero_snr)" if self.config.rescale_betas_zero_snr else ""
            raise ZeroshiftError(
                f"The noise schedule ends in pure noise{cause}, where the noise that the network predicts "
                "(prediction_type 'epsilon') determines no image. Set rescale_betas_zero_snr to false, or "
                "prediction_type to 'v_prediction' if the network was trained for it."
            )

    def __len__(self) -> int:
        return len(self.alphas)

    def approach(self, t0: float, steps: int) -> list[int]:
        """The levels of `steps` steps from pure noise down to t0 (a share of all levels), both included.

        Empty for t0 = 1, where no steps are needed.
        """
        if t0 == 1:
            return []
        top, level = len(self), t0 * len(self)
        if self.config.timestep_spacing == "leading":  # without the top level
            return self._rounded(np.linspace(top, level, steps + 2)[1:])
        return self._rounded(np.linspace(top, level, steps + 1))

    def descent(self, t0: float, steps: int) -> list[int]:
        """The levels of `steps` steps from t0 (a share of all levels) down to `CLEAN`, both included.

        For t0 = 1 the timesteps are those of diffusers' DDIMScheduler. For t0 < 1 the levels are evenly spaced down to
        timestep 0 (with "trailing" spacing to `CLEAN`), and the first one does not depend on the number of steps, as
        inverted images require. Steps go from one listed level to the next. diffusers does the same except for
        "linspace" spacing, and for "trailing" if the number of steps does not divide the number of levels.
        """
        if t0 == 1:
            if steps > len(self):
                raise ZeroshiftError(f"sampling.steps is {steps}, but the model has only {len(self)} noise levels.")
            self.scheduler.set_timesteps(steps)
            return [*self.scheduler.timesteps.clamp(max=len(self) - 1).tolist(), CLEAN]
        level = t0 * len(self)
        if self.config.timestep_spacing == "trailing":
            return self._rounded(np.linspace(level, 0, steps + 1))
        return [*self._rounded(np.linspace(level, 0, steps)), CLEAN]

    def _rounded(self, positions: npt.NDArray[np.float64]) -> list[int]:
        shift = {"trailing": -1, "leading": self.config.steps_offset}.get(self.config.timestep_spacing, 0)
        levels: list[int] = (np.round(positions) + shift).clip(CLEAN, len(self) - 1).astype(int).tolist()
        return levels

    def alpha(self, level: int) -> Tensor:
        """ᾱ of a level."""
        return self.last_alpha if level == CLEAN else self.alphas[level]

    def noise_and_image(self, x: Tensor, output: Tensor, level: int, clip: bool = True) -> tuple[Tensor, Tensor]:
        """The noise ε and the clean image x̂_0 from the network's output for x at a level."""
        alpha = self.alpha(level)
        scale, sigma = alpha.sqrt(), (1 - alpha).sqrt()
        if self.config.prediction_type == "epsilon":
            noise, clean = output, (x - sigma * output) / scale
        elif self.config.prediction_type == "v_prediction":
            noise, clean = scale * output + sigma * x, scale * x - sigma * output
        else:  # sample prediction; at CLEAN, where sigma is 0, with the sigma of the level above
            noise, clean = (x - scale * output) / sigma.clamp(min=(1 - self.alphas[0]).sqrt()), output
        if self.config.clip_sample and clip:
            clean = clean.clamp(-self.config.clip_sample_range, self.config.clip_sample_range)
        return noise, clean

    def step(self, x: Tensor, output: Tensor, here: int, there: int, clip: bool = True) -> tuple[Tensor, Tensor]:
        """x at level `there`, and x̂_0: DDIM, equation 12 with σ = 0, in either direction.

        Args:
            x: [N, ...] at level `here`.
            output: the network's output for x at the noisier of both levels, as in diffusers' inversion.
            clip: clip x̂_0 if the schedule does.
        """
        noise, clean = self.noise_and_image(x, output, here, clip)
        alpha = self.alpha(there)
        return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise, clean


def _ddim(values: Mapping[str, Any]) -> Any:
    """DDIMScheduler with arguments of `schedule_config`."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    values = dict(values)
    if values.get("beta_schedule") in _ONLY_DDPM and values.get("trained_betas") is None:
        names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
        given = {name: values[name] for name in names if name in values}
        values["trained_betas"] = DDPMScheduler(**given).betas.float().tolist()
    return DDIMScheduler(**values)
