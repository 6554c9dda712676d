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
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from ..generators import StyleGAN2, save_generator
from ..generators.blocks import EqualLinear, Mapping, normalize_second_moment
from ..randomness import normal, stream
from ..runs import atomic_write
from .anatomy import build_scene
from .domains import SOURCE
from .encoders import weights_path
from .factors import BORDER, FACTORS, NUM_FACTORS, class_weights, positions, values
from .media import DEPICT
from .muon import Muon
from .renderer import render, sample_latents
from .training import average, run_training, set_rate, step_stream

__all__ = [
    "CHANNELS", "Portraits", "factor_features", "fit", "kernels_and_others", "lower", "portrait", "portrait_loss",
    "psnr", "solve_mapping", "train_generator",
]  # fmt: skip

CHANNELS: dict[int | str, int] = {4: 256, 8: 192, 16: 96, 32: 48, 64: 32}
W_DIM, MAPPING_FEATURES = 128, 256
STAGES = ((16, 900), (32, 1600))  # resolution, and the step at which it ends; then the full one
KERNEL_RATE, OTHER_RATE = 0.02, 3e-3
EXAM_SEED, EXAM_PEOPLE = 80001, 128
DECAY = 0.35  # share of the steps, at the end, over which the rates fall


# -- the mapping network --------------------------------------------------------------------------------------------


def factor_features(latents: Tensor) -> Tensor:
    """All factors, standardised to mean 0 and variance 1; one column a scalar, one column a class: [N, 63]."""
    u = positions(latents)
    columns = []
    for index, factor in enumerate(FACTORS):
        if factor.is_class:
            shares = torch.tensor(factor.shares, dtype=u.dtype)
            columns.append((class_weights(factor, u[:, index]) - shares) / (shares * (1 - shares)).sqrt())
        else:
            columns.append((u[:, index : index + 1] - 0.5) * math.sqrt(12))
    return torch.cat(columns, dim=1)


@torch.no_grad()
def solve_mapping(mapping: Mapping, seed: int) -> None:
    """Sets a mapping network of two layers so that w holds `factor_features`, then random mixtures of them.

    Layer 0: every hidden unit bends at one knot of one latent coordinate, so its outputs span the piecewise linear
    functions of each coordinate. Layer 1: least squares. The last leaky ReLU is undone where w is to be a factor and
    kept where w is a random mixture, which it makes non-linear. `w_avg` becomes the mean.
    """
    random = stream(seed, "mapping")
    z = torch.randn(16384, NUM_FACTORS, generator=random)
    knots = [(index, knot) for index in range(NUM_FACTORS) for knot in _knots(index)]
    first, last = (layer for layer in mapping.children() if isinstance(layer, EqualLinear))
    directions = torch.zeros(len(first.bias), NUM_FACTORS)
    offsets = torch.zeros(len(first.bias))
    for unit, (index, knot) in enumerate(knots):
        directions[unit, index], offsets[unit] = 1, -knot
    first.weight.copy_(directions / first.weight_gain)
    first.bias.copy_(offsets / first.bias_gain)
    hidden = first(normalize_second_moment(z))

    features = factor_features(z)
    mixtures = torch.randn(features.shape[1], len(last.bias) - features.shape[1], generator=random)
    wanted = torch.cat([torch.where(features < 0, 5 * features, features), features @ mixtures * 0.2], dim=1)
    design = torch.cat([hidden, torch.ones(len(z), 1)], dim=1).double()
    ridge = 1e-6 * len(z) * torch.eye(design.shape[1], dtype=torch.double)
    solution = torch.linalg.solve(design.t() @ design + ridge, design.t() @ wanted.double() / math.sqrt(2)).float()
    last.weight.copy_(solution[:-1].t() / last.weight_gain)
    last.bias.copy_(solution[-1] / last.bias_gain)
    mapping.w_avg.copy_(mapping(z).mean(dim=0))


def _knots(index: int) -> list[float]:
    """Where factor `index` bends as a function of its normalised latent coordinate."""
    factor = FACTORS[index]
    if factor.is_class:
        cuts = torch.tensor(factor.shares, dtype=torch.double).cumsum(0)[:-1]
        edges = torch.cat([cuts - 0.8 * BORDER, cuts + 0.8 * BORDER])  # a straight ramp for the smoothstep
    else:
        edges = torch.tensor([0.02, 0.12, 0.3, 0.5, 0.7, 0.88, 0.98], dtype=torch.double)
    return torch.special.ndtri(edges).tolist()


# -- the truth ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def portrait(latents: Tensor, truncation: Tensor) -> Tensor:
    """The renderer's photo of a person, scalar factors pulled to their middle: [N, 32], [N] -> [N, 3, 64, 64]."""
    seen = values(latents)
    for factor in FACTORS:
        if not factor.is_class:
            middle = (factor.low + factor.high) / 2
            seen[factor.name] = middle + truncation * (seen[factor.name] - middle)
    return DEPICT[SOURCE.medium](build_scene(seen, SOURCE.being), torch.zeros) * 2 - 1


class Portraits:
    """Training portraits of a seed in blocks of 256, kept in `folder` and rendered where they are missing."""

    BLOCK, FIRST, STEPS_PER_BLOCK, TRUNCATED = 256, 16, 20, 8

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed = folder, seed
        self.latents = torch.empty(0, NUM_FACTORS)
        self.truncation = torch.empty(0)
        self.pixels: list[np.ndarray] = []

    def batch(self, step: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random portraits of those available at a step, whose number grows: latents, truncation [N], images."""
        while len(self.pixels) < self.FIRST + step // self.STEPS_PER_BLOCK:
            self._add(len(self.pixels))
        available = (self.FIRST + step // self.STEPS_PER_BLOCK) * self.BLOCK
        rows = torch.randint(available, (count,), generator=step_stream(self.seed, "portraits", step))
        pixels = np.stack([self.pixels[row // self.BLOCK][row % self.BLOCK] for row in rows.tolist()])
        return self.latents[rows], self.truncation[rows], torch.from_numpy(pixels).float() / 127.5 - 1

    def _add(self, block: int) -> None:
        samples = range(block * self.BLOCK, (block + 1) * self.BLOCK)
        latents = normal((NUM_FACTORS,), self.seed, "portraits", samples=samples)
        truncation = torch.ones(self.BLOCK)
        if block % self.TRUNCATED == self.TRUNCATED - 1:
            truncation = 1 - 0.5 * torch.rand(self.BLOCK, generator=stream(self.seed, "truncation", block))
        path = self.folder / f"seed{self.seed}-block{block:05d}.npy"
        if not path.exists():
            parts = zip(latents.split(64), truncation.split(64), strict=True)
            images = torch.cat([portrait(*part) for part in parts])
            pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.save(file, pixels)
        self.pixels.append(np.load(path, mmap_mode="r"))
        self.latents = torch.cat([self.latents, latents])
        self.truncation = torch.cat([self.truncation, truncation])


# -- the fit --------------------------------------------------------------------------------------------------------


def lower(generator: StyleGAN2, resolution: int) -> StyleGAN2:
    """The same network cut off at a lower resolution; it shares the modules of `generator`."""
    channels = {size: width for size, width in generator.config["channels"].items() if int(size) <= resolution}
    cut = StyleGAN2(**{**generator.config, "resolution": resolution, "channels": channels})
    cut.mapping, cut.synthesis.input = generator.mapping, generator.synthesis.input
    for size in channels:
        setattr(cut.synthesis, f"b{size}", getattr(generator.synthesis, f"b{size}"))
    return cut


def portrait_loss(images: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute difference of pixels and of their gradients, at full, half and quarter size, averaged over sizes.

    Around the eyes, where errors are seen first, every difference counts up to three times.
    """
    difference = images - truth
    size = images.shape[-1]
    grid = (torch.arange(size, dtype=images.dtype, device=images.device) + 0.5) * (2 / size) - 1
    weight = 1 + 2 * (-(grid / 0.40).square()[None, :] - ((grid + 0.12) / 0.26).square()[:, None]).exp()
    total = images.new_zeros(())
    for _ in range(3):
        total = total + (difference.abs() * weight).mean()
        total = total + (difference.diff(dim=-1).abs() * weight[:, 1:]).mean()
        total = total + (difference.diff(dim=-2).abs() * weight[1:]).mean()
        difference, weight = F.avg_pool2d(difference, 2), F.avg_pool2d(weight[None, None], 2)[0, 0]
    return total / 3


def fit(network: StyleGAN2, ws: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and, without a gradient, PSNR of the network's pictures of ws [N, num_ws, w_dim]."""
    images = network.synthesize(ws, noise="none")
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
        recipe = {"recipe": "zeroshift.miniature.train_generator", "seed": str(seed), "step": str(step)}
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
    w = torch.lerp(network.mapping.w_avg, network.context(latents), truncation[:, None])
    return network.broadcast(w)


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB over all pixels; images in [-1, 1], so the peak is 2."""
    return 10 * torch.log10(4 / (images.clamp(-1, 1) - truth).square().mean())


if __name__ == "__main__":
    tyro.cli(train_generator)
