"""Trains the miniature generator: a StyleGAN2 that draws what the renderer draws at the same latent.

The truth is a function of the latent, so nothing adversarial is needed: the network is fitted to it (distillation).
What makes that possible within an hour of one processor core:

- The mapping network is not learned. What it should tell apart is known, so it is solved for: w holds every factor of
  the world, standardised, and random mixtures of them (`solve_mapping`). It stays an ordinary mapping network.
- The kernels are trained by Muon, which needs less than half of Adam's steps here.
- The skip architecture has a picture at every resolution, so training begins at 16 and 32 pixels.
- One portrait in eight is a truncated one: the truth at truncation psi has its scalar factors pulled to their middle
  by psi and its classes as they were, so that truncated people have no half-transparent glasses.
"""

import copy
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from zeroshift.generators.checkpoints.files import save_generator
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.miniature.exams.pixels import portrait_loss, psnr
from zeroshift.miniature.networks.encoders import weights_path
from zeroshift.miniature.training.loop import average, run_training, set_rate
from zeroshift.miniature.training.muon import Muon
from zeroshift.miniature.training.portraits import Portraits
from zeroshift.miniature.training.solved_mapping import solve_mapping
from zeroshift.miniature.world.factors import NUM_FACTORS
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = ["CHANNELS", "fit", "kernels_and_others", "lower", "train_generator"]  # fmt: skip

CHANNELS: dict[int | str, int] = {4: 256, 8: 192, 16: 96, 32: 48, 64: 32}
W_DIM, MAPPING_FEATURES = 128, 256
STAGES = ((16, 900), (32, 1600))  # resolution, and the step at which it ends; then the full one
KERNEL_RATE, OTHER_RATE = 0.02, 3e-3
EXAM_SEED, EXAM_PEOPLE = 80001, 128
DECAY = 0.35  # share of the steps, at the end, over which the rates fall


# -- the mapping network --------------------------------------------------------------------------------------------


# -- the truth ------------------------------------------------------------------------------------------------------


# -- the fit --------------------------------------------------------------------------------------------------------


def lower(generator: StyleGAN2, resolution: int) -> StyleGAN2:
    """The same network cut off at a lower resolution; it shares the modules of `generator`."""
    channels = {size: width for size, width in generator.config["channels"].items() if int(size) <= resolution}
    cut = StyleGAN2(**{**generator.config, "resolution": resolution, "channels": channels})
    cut.mapping, cut.synthesis.input = generator.mapping, generator.synthesis.input
    for size in channels:
        setattr(cut.synthesis, f"b{size}", getattr(generator.synthesis, f"b{size}"))
    return cut


def fit(network: StyleGAN2, ws: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and, without a gradient, PSNR of the network's pictures of ws [N, num_ws, w_dim]."""
    images = network.synthesize(ws, noise_mode="none")
    return portrait_loss(images, truth), psnr(images.detach(), truth)


def _rate(step: int, steps: int) -> float:
    """Warm-up, plateau, then a straight fall to zero: what comes before the fall does not depend on `steps`."""
    return min(1.0, (step + 1) / 50, (steps - step) / (DECAY * steps))


def kernels_and_others(parameters: Iterable[tuple[str, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """Kernels of the styled convolutions, and all other parameters that are trained."""
    kernels: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in parameters:
        if name.endswith("noise_strength"):  # the truth has no noise, so the strengths stay zero
            continue
        (kernels if parameter.ndim == 4 and "torgb" not in name else others).append(parameter)
    return kernels, others


def train_generator(
    out: Path = Path("training/generator"),
    *,
    steps: int = 6500,
    batch: int = 32,
    seed: int = 4,
    minutes: float | None = None,
    threads: int = 1,
    compiled: bool = False,
    weights: Path | None = None,
) -> int:
    """Trains the generator, or goes on where it stopped, and writes the weights of its moving average.

    Args:
        out: folder of checkpoint, log and rendered portraits.
        steps: of `batch` portraits; may be changed between calls, as the learning rate only falls at the end.
        batch: portraits a step.
        minutes: stop after so many minutes; the same command goes on later.
        threads: processor cores to use.
        compiled: use `torch.compile` at full size: a quarter faster after some minutes; needs a C++ compiler.
        weights: where the result goes; the place of the shipped file if not given.

    Returns:
        The step reached.
    """
    torch.set_num_threads(threads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = StyleGAN2(
            64, NUM_FACTORS, W_DIM, channels=CHANNELS, mapping_layers=2, mapping_features=MAPPING_FEATURES
        )
    solve_mapping(generator.mapping, seed)
    generator.mapping.requires_grad_(False)
    mean = average(generator, 0.998)
    kernels, others = kernels_and_others(generator.synthesis.named_parameters())
    by_muon, by_adam = Muon(kernels, KERNEL_RATE), torch.optim.Adam(others, OTHER_RATE, betas=(0.9, 0.99))
    portraits = Portraits(out / "portraits", seed)
    stages = [(lower(generator, resolution), end) for resolution, end in STAGES]

    fit_whole = torch.compile(fit, dynamic=False) if compiled else fit

    def update(step: int) -> dict[str, Tensor]:
        network = next((cut for cut, end in stages if step < end), generator)
        latents, truncation, truth = portraits.batch(step, batch)
        truth = F.avg_pool2d(truth, 64 // network.resolution)
        ws = _truncated(network, latents, truncation)
        loss, quality = (fit_whole if network is generator else fit)(network, ws, truth)
        for optimiser, peak in ((by_muon, KERNEL_RATE), (by_adam, OTHER_RATE)):
            set_rate(optimiser, peak * _rate(step, steps))
            optimiser.zero_grad()
        loss.backward()
        by_muon.step()
        by_adam.step()
        mean.update_parameters(generator)
        return {"loss": loss, "psnr": quality}

    def save(step: int) -> None:
        recipe = {"recipe": "zeroshift.miniature.training.generator", "seed": str(seed), "step": str(step)}
        delivered = copy.deepcopy(generator)
        delivered.load_state_dict(mean.module.state_dict())
        save_generator(delivered, weights or weights_path("generator"), recipe)

    def evaluate(step: int) -> dict[str, float]:
        if step > STAGES[-1][1]:  # before, its full-size pictures are not yet worth having
            save(step)
        with torch.no_grad():
            people = sample_latents(EXAM_SEED, range(EXAM_PEOPLE))
            return {"exam": psnr(torch.cat([mean.module(part) for part in people.split(64)]), render(people)).item()}

    reached = run_training(
        out, {"generator": generator, "mean": mean, "muon": by_muon, "adam": by_adam}, update,
        steps=steps, settings={"seed": seed, "batch": batch}, minutes=minutes,
        save_every=300, evaluate=evaluate, evaluate_every=300,
    )  # fmt: skip
    save(reached)
    return reached


def _truncated(network: StyleGAN2, latents: Tensor, truncation: Tensor) -> Tensor:
    """ws [N, num_ws, w_dim], each row truncated by its own factor."""
    w = torch.lerp(network.mapping.w_avg, network.mapper_input(latents), truncation[:, None])
    return network.broadcast(w)


if __name__ == "__main__":
    tyro.cli(train_generator)
