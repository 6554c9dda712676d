"""The solvers of diffusion models, on data whose flow is known, and against diffusers."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor

from tests.helpers.diffusion_models import ddpm
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.generators.diffusion.schedule import CLEAN, NoiseSchedule
from zeroshift.generators.diffusion.solvers import SOLVERS, DDIMSolver, MultistepSolver

DEVIATION = 0.3  # of the data, which is Gaussian
SCHEDULE = NoiseSchedule({"timestep_spacing": "trailing", "clip_sample": False})


def output(x: Tensor, level: int, schedule: NoiseSchedule = SCHEDULE) -> Tensor:
    """What the perfect network for N(0, DEVIATION^2) predicts."""
    alpha = schedule.alpha(level)
    noise = (1 - alpha).sqrt() * x / (alpha * DEVIATION**2 + 1 - alpha)
    if schedule.config.prediction_type == "epsilon":
        return noise
    clean = alpha.sqrt() * DEVIATION**2 * x / (alpha * DEVIATION**2 + 1 - alpha)
    return alpha.sqrt() * noise - (1 - alpha).sqrt() * clean


def flow(x: Tensor, here: int, there: int) -> Tensor:
    """The exact solution."""
    start, end = (SCHEDULE.alpha(level) for level in (here, there))
    return x * ((end * DEVIATION**2 + 1 - end) / (start * DEVIATION**2 + 1 - start)).sqrt()


def solve(name: str, x: Tensor, levels: Sequence[int], schedule: NoiseSchedule = SCHEDULE) -> Tensor:
    solver = SOLVERS[name](schedule)
    for here, there in pairwise(levels):
        x, _ = solver.step(x, output(x, solver.timestep(here, there), schedule), here, there)
    return x


def error(name: str, levels: Sequence[int]) -> float:
    x = torch.ones(1, 3, 2, 2)
    return float((solve(name, x, levels) - flow(x, levels[0], levels[-1])).abs().max())


def test_the_multistep_solver_is_of_second_order_in_both_directions() -> None:
    """Errors are much smaller than those of DDIM with equal steps. Twice the steps divide them by about four."""
    for ends in ((600, 100), (100, 600)):
        few, many = (torch.linspace(*ends, steps + 1).round().int().tolist() for steps in (20, 40))
        assert error("dpm-solver++", few) < 0.3 * error("ddim", few)
        assert error("dpm-solver++", few) / error("dpm-solver++", many) > 3.5
        assert error("ddim", few) / error("ddim", many) < 2.5


def test_inversion_and_sampling_meet() -> None:
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    levels = SCHEDULE.descent(0.6, 12)
    ends = {name: solve(name, solve(name, x, levels[::-1]), levels) for name in SOLVERS}
    missed = {name: float((end - x).abs().max()) for name, end in ends.items()}
    assert missed["dpm-solver++"] < 0.7 * missed["ddim"], missed


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers with NumPy 2
@pytest.mark.parametrize("zero_snr", [False, True])
def test_steps_are_those_of_diffusers(zero_snr: bool) -> None:
    """Also from pure noise, where the logarithm of the signal is infinite."""
    kind = "v_prediction" if zero_snr else "epsilon"
    config = {"timestep_spacing": "trailing", "prediction_type": kind, "rescale_betas_zero_snr": zero_snr}
    schedule = NoiseSchedule({**config, "clip_sample": False})
    other = DPMSolverMultistepScheduler(**config, final_sigmas_type="zero", lower_order_final=False)
    other.set_timesteps(10)
    levels = schedule.descent(1.0, 10)
    assert levels == [*other.timesteps.tolist(), CLEAN]
    x = theirs = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    solver = MultistepSolver(schedule)
    for here, there in pairwise(levels):
        predicted = output(theirs, here, schedule)
        theirs = other.step(predicted, here, theirs).prev_sample
        x, _ = solver.step(x, output(x, solver.timestep(here, there), schedule), here, there)
        torch.testing.assert_close(x, theirs, rtol=1e-4, atol=1e-4)
    assert x.isfinite().all()


def test_more_steps_than_levels_change_nothing() -> None:
    levels = SCHEDULE.descent(0.02, 19)
    x = torch.ones(1, 3, 2, 2)
    repeated = [level for level in levels for _ in range(2)]
    torch.testing.assert_close(solve("dpm-solver++", x, repeated), solve("dpm-solver++", x, levels))


def test_ddim_evaluates_the_noisier_level_and_the_multistep_solver_its_own() -> None:
    ddim, multistep = DDIMSolver(SCHEDULE), MultistepSolver(SCHEDULE)
    assert [ddim.timestep(*step) for step in ((599, 449), (449, 599), (CLEAN, 149))] == [599, 599, 149]
    assert [multistep.timestep(*step) for step in ((599, 449), (449, 599), (CLEAN, 149))] == [599, 449, 149]


def test_a_generator_samples_and_trains_with_the_multistep_solver(tmp_path: Path) -> None:
    """A naive loop gives the same images. Trained at each step, a step's image has only the graph of that step."""
    generator = load_generator(ddpm(tmp_path / "ddpm"))
    options = DDIMOptions(t0=0.5, noise_steps=3, steps=4, clip_sample=False, solver="dpm-solver++")
    generator.configure(options)
    codes = generator.codes(generator.sample_latents(1, range(2))).detach()
    solver, x = MultistepSolver(generator.schedule, clip=False), codes
    levels = generator.schedule.descent(0.5, 4)
    for here, there in pairwise(levels):
        x, clean = solver.step(x, generator.unet(x, here).sample, here, there)
    torch.testing.assert_close(generator.synthesize(codes), x)
    generator.configure(replace(options, train_each_step=True))
    norms = []
    for images in generator.training_images(codes):
        images.square().mean().backward()
        norms.append(sum(float(one.grad.square().sum()) for one in generator.parameters()))
        generator.zero_grad()
    assert len(norms) == 4
    assert min(norms) > 0
    torch.testing.assert_close(images, clean)
    generator.configure(replace(options, solver="ddim"))
    assert (generator.synthesize(codes) - x).abs().max() > 1e-3
