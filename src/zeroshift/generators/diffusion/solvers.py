"""Solvers of the probability flow ODE of a diffusion model: DDIM, and DPM-Solver++ of second order.

A solver goes from noise level to noise level, in either direction, and belongs to one trajectory.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from zeroshift.generators.diffusion.schedule import CLEAN, NoiseSchedule

__all__ = ["SOLVERS", "DDIMSolver", "MultistepSolver", "Solver"]


class Solver(ABC):
    """Steps of one trajectory.

    Args:
        schedule: the noise levels, and what the network predicts.
        clip: clip the predicted image if the schedule does.
    """

    def __init__(self, schedule: NoiseSchedule, clip: bool = True) -> None:
        self.schedule, self.clip = schedule, clip

    @abstractmethod
    def timestep(self, here: int, there: int) -> int:
        """The timestep at which the network is evaluated, for a step from one level to another."""

    @abstractmethod
    def step(self, x: Tensor, output: Tensor, here: int, there: int) -> tuple[Tensor, Tensor]:
        """x at level `there`, and x̂_0.

        Args:
            x: [N, ...] at level `here`.
            output: the network's output for x at `timestep(here, there)`, of the same shape.
        """


class DDIMSolver(Solver):
    """Deterministic DDIM (Song et al., 2021, equation 12 with σ = 0), which is of first order.

    The inversion evaluates the network at the noisier of both levels, as DiffusionCLIP and diffusers do.
    """

    def timestep(self, here: int, there: int) -> int:
        """See `Solver.timestep`."""
        return max(here, there)

    def step(self, x: Tensor, output: Tensor, here: int, there: int) -> tuple[Tensor, Tensor]:
        """See `Solver.step`."""
        return self.schedule.step(x, output, here, there, self.clip)


class MultistepSolver(Solver):
    """DPM-Solver++(2M) (Lu et al., "DPM-Solver++", 2022, algorithm 2), of second order, with one evaluation per step.

    With λ = log(α / σ), h = λ_there - λ_here and r = (λ_here - λ_before) / h:

        D = x̂_0 + (x̂_0 - x̂_0 of the step before) / (2r)
        x_there = σ_there / σ_here x - α_there (exp(-h) - 1) D

    The first step is of first order (D = x̂_0). Steps from and to `CLEAN`, where λ is infinite, are those of DDIM. So
    are steps that stay at a level; a trajectory with more steps than levels has such steps.
    """

    def __init__(self, schedule: NoiseSchedule, clip: bool = True) -> None:
        super().__init__(schedule, clip)
        self._before: tuple[Tensor, int] | None = None  # x̂_0 of the step before, and its level

    def timestep(self, here: int, there: int) -> int:
        """See `Solver.timestep`."""
        return there if here == CLEAN else here

    def step(self, x: Tensor, output: Tensor, here: int, there: int) -> tuple[Tensor, Tensor]:
        """See `Solver.step`."""
        if CLEAN in (here, there) or here == there:
            return self.schedule.step(x, output, here, there, self.clip)
        clean = self.schedule.noise_and_image(x, output, here, self.clip)[1]
        start, end = self._log_snr(here), self._log_snr(there)
        extrapolated = clean
        if self._before is not None:
            before, level = self._before
            share = (end - start) / (start - self._log_snr(level)) / 2  # 1 / (2r); 0 after pure noise
            extrapolated = clean + share * (clean - before)
        self._before = clean, here
        alpha, shrink = self.schedule.alpha(there).sqrt(), self._sigma(there) / self._sigma(here)
        growth = -alpha * torch.expm1(start - end)
        return shrink * x + growth * extrapolated, clean

    def _sigma(self, level: int) -> Tensor:
        return (1 - self.schedule.alpha(level)).sqrt()

    def _log_snr(self, level: int) -> Tensor:
        """λ = log(α / σ); minus infinity for pure noise."""
        alpha = self.schedule.alpha(level)
        return (alpha.log() - (1 - alpha).log()) / 2


SOLVERS: dict[str, type[Solver]] = {"ddim": DDIMSolver, "dpm-solver++": MultistepSolver}
"""By the names of `sampling.solver`."""
