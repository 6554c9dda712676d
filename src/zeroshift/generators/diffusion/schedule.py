"""Deterministic DDIM (Song et al., "Denoising diffusion implicit models", 2021): noise levels and steps between."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from zeroshift.errors import ZeroshiftError

__all__ = ["CLEAN", "NoiseSchedule"]

CLEAN = -1  # the level without noise, below timestep 0
_SCHEDULERS = ("DDIMScheduler", "DDPMScheduler")


class NoiseSchedule(nn.Module):
    """The noise levels of a diffusion model, and the step from one to another.

    Levels are timesteps, or `CLEAN`. A trajectory is a list of them, downwards to generate, upwards to invert.

    Args:
        config: of a DDIMScheduler or DDPMScheduler of diffusers; what it leaves out has the defaults of DDIMScheduler.
    Raises:
        ZeroshiftError: if the scheduler is of another kind, or thresholds dynamically.
    """

    alphas: Tensor  # [T], the cumulative products ᾱ_t
    last_alpha: Tensor  # ᾱ of CLEAN

    def __init__(self, config: Mapping[str, Any]):
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler

        super().__init__()
        kind = config.get("_class_name", _SCHEDULERS[0])
        if kind not in _SCHEDULERS:
            raise ZeroshiftError(
                f"The noise schedule is a {kind}. Deterministic DDIM needs {' or '.join(_SCHEDULERS)}."
            )
        self.scheduler = DDIMScheduler.from_config(config)
        self.config = self.scheduler.config
        if self.config.thresholding:
            raise ZeroshiftError("The noise schedule thresholds dynamically, which DDIM inversion cannot undo.")
        self.register_buffer("alphas", self.scheduler.alphas_cumprod.clone(), persistent=False)
        self.register_buffer("last_alpha", self.scheduler.final_alpha_cumprod.clone(), persistent=False)

    def __len__(self) -> int:
        return len(self.alphas)

    def approach(self, t0: float, steps: int) -> list[int]:
        """The levels of `steps` steps from pure noise to the level t0 (a share of all), downwards, both included.

        None are needed for t0 = 1, where the list is empty.
        """
        if t0 == 1:
            return []
        top, level = len(self), t0 * len(self)
        if self.config.timestep_spacing == "leading":  # which leaves the top out
            return self._rounded(np.linspace(top, level, steps + 2)[1:])
        return self._rounded(np.linspace(top, level, steps + 1))

    def descent(self, t0: float, steps: int) -> list[int]:
        """The levels of `steps` steps from the level t0 (a share of all) to `CLEAN`, downwards, both included.

        For t0 = 1 the timesteps are those of diffusers' DDIMScheduler. Below, the first level is the same for any
        number of steps, as an inverted image needs it: evenly spaced to timestep 0, or with spacing "trailing" to
        `CLEAN`. Steps go from one listed level to the next; so do those of diffusers, but for spacing "linspace", and
        for "trailing" with a number of steps that does not divide that of all levels.
        """
        if t0 == 1:
            self.scheduler.set_timesteps(steps)
            return [*self.scheduler.timesteps.tolist(), CLEAN]
        level = t0 * len(self)
        if self.config.timestep_spacing == "trailing":
            return self._rounded(np.linspace(level, 0, steps + 1))
        return [*self._rounded(np.linspace(level, 0, steps)), CLEAN]

    def _rounded(self, positions: np.ndarray) -> list[int]:
        shift = {"trailing": -1, "leading": self.config.steps_offset}.get(self.config.timestep_spacing, 0)
        return (np.round(positions) + shift).clip(CLEAN, len(self) - 1).astype(int).tolist()

    def alpha(self, level: int) -> Tensor:
        """ᾱ of a level."""
        return self.last_alpha if level == CLEAN else self.alphas[level]

    def noise_and_image(self, x: Tensor, output: Tensor, level: int, clip: bool = True) -> tuple[Tensor, Tensor]:
        """The noise ε and the clean image x̂_0 that a network's output for x at a level stands for."""
        alpha = self.alpha(level)
        scale, sigma = alpha.sqrt(), (1 - alpha).sqrt()
        if self.config.prediction_type == "epsilon":
            noise, clean = output, (x - sigma * output) / scale
        elif self.config.prediction_type == "v_prediction":
            noise, clean = scale * output + sigma * x, scale * x - sigma * output
        else:  # at CLEAN, where sigma is 0, as at the level above it
            noise, clean = (x - scale * output) / sigma.clamp(min=(1 - self.alphas[0]).sqrt()), output
        if self.config.clip_sample and clip:
            clean = clean.clamp(-self.config.clip_sample_range, self.config.clip_sample_range)
        return noise, clean

    def step(self, x: Tensor, output: Tensor, here: int, there: int, clip: bool = True) -> tuple[Tensor, Tensor]:
        """x carried from level `here` to level `there`, and x̂_0: DDIM, equation 12 with σ = 0, in either direction.

        Args:
            x: [N, ...] at level `here`.
            output: of the network for x at the noisier of both levels; diffusers' inversion evaluates there too.
            clip: clips x̂_0 if the schedule is one that does.
        """
        noise, clean = self.noise_and_image(x, output, here, clip)
        alpha = self.alpha(there)
        return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise, clean
