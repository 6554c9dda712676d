"""The recipe of the StyleGAN2 generator: `zeroshift miniature train generator`.

The true image is a function of the latent, so the network is fitted to the renderer directly (distillation) and no
adversarial training is needed. Four choices make this possible within an hour on one processor core:

- The mapping network is not trained but solved for: w holds all factors of the world, standardized, and random mixtures
  of them (`solve_mapping`). The result is still an ordinary mapping network.
- The kernels are trained with Muon, which needs less than half the steps of Adam here.
- The skip architecture has an output at every resolution, so training begins at 16 and 32 pixels.
- One portrait in eight is truncated (`portraits.portrait`), so that the generator's truncation is trained too.
"""

import copy
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.generators.checkpoints.files import save_generator
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.io.outputs import require_writable
from zeroshift.miniature.exams.pixels import portrait_loss, psnr
from zeroshift.miniature.networks.encoders import weights_path
from zeroshift.miniature.training.loop import Stateful, average, plateau_rate, run_training, set_rate
from zeroshift.miniature.training.muon import Muon
from zeroshift.miniature.training.portraits import Portraits
from zeroshift.miniature.training.solved_mapping import solve_mapping
from zeroshift.miniature.world.factors import NUM_FACTORS
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = ["CHANNELS", "fit", "kernels_and_others", "lower", "train_generator"]

CHANNELS: dict[int | str, int] = {4: 256, 8: 192, 16: 96, 32: 48, 64: 32}
W_DIM, MAPPING_FEATURES = 128, 256
STAGES = ((16, 900), (32, 1600))  # (resolution, step at which it ends); then the full resolution
KERNEL_RATE, OTHER_RATE = 0.02, 3e-3  # peak learning rates of Muon and of Adam
EXAM_SEED, EXAM_PEOPLE = 80001, 128
DECAY = 0.35  # final fraction of the steps in which the learning rates fall


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
    """Train the StyleGAN2 generator and write its moving average. The same command resumes an interrupted training.

    Examples:
      zeroshift miniature train generator --out training/generator --threads 2

    Args:
        out: Folder for the checkpoint, the log and the rendered portraits.
        steps: Training steps of `batch` portraits. Can be changed until the learning rate decays, in the last 35 %.
        batch: Portraits per step.
        seed: Seed of weights and portraits.
        minutes: Stop after so many minutes. The same command resumes.
        threads: Number of processor cores to use.
        compiled: Use torch.compile at full resolution: 25 % faster after some minutes; needs a C++ compiler.
        weights: File to write. Default: replace the shipped file.

    Returns:
        The step reached.
    """
    torch.set_num_threads(threads)
    target = weights or weights_path("generator")
    require_writable(target.parent)
    training = _Training(Portraits(out / "portraits", seed), steps, batch, seed, target)
    if compiled:
        training.fit_full = torch.compile(fit, dynamic=False)
    reached = run_training(
        out, training.parts, training.update, steps=steps, settings={"seed": seed, "batch": batch}, minutes=minutes,
        save_every=300, evaluate=training.evaluate, evaluate_every=300,
    )  # fmt: skip
    training.save(reached)
    return reached


class _Training:
    """The state of one training of the generator."""

    def __init__(self, portraits: Portraits, steps: int, batch: int, seed: int, weights: Path):
        self.portraits, self.steps, self.batch, self.seed, self.weights = portraits, steps, batch, seed, weights
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator = StyleGAN2(
                64, NUM_FACTORS, W_DIM, channels=CHANNELS, mapping_layers=2, mapping_features=MAPPING_FEATURES
            )
        solve_mapping(self.generator.mapping, seed)
        self.generator.mapping.requires_grad_(False)
        self.mean = average(self.generator, 0.998)
        kernels, others = kernels_and_others(self.generator.synthesis.named_parameters())
        self.muon = Muon(kernels, KERNEL_RATE)
        self.adam = torch.optim.Adam(others, OTHER_RATE, betas=(0.9, 0.99))
        self.stages = [(lower(self.generator, resolution), end) for resolution, end in STAGES]
        self.fit_full = fit  # may be replaced by a compiled version
        self.parts: dict[str, Stateful] = {
            "generator": self.generator,
            "mean": self.mean,
            "muon": self.muon,
            "adam": self.adam,
        }

    def update(self, step: int) -> dict[str, Tensor]:
        """One step of the training."""
        network = next((cut for cut, end in self.stages if step < end), self.generator)
        latents, truncation, truth = self.portraits.batch(step, self.batch)
        truth = F.avg_pool2d(truth, 64 // network.resolution)
        ws = _truncated(network, latents, truncation)
        loss, quality = (self.fit_full if network is self.generator else fit)(network, ws, truth)
        for optimizer, peak in ((self.muon, KERNEL_RATE), (self.adam, OTHER_RATE)):
            set_rate(optimizer, peak * plateau_rate(step, self.steps, decay=DECAY))
            optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.muon.step()
        self.adam.step()
        self.mean.update_parameters(self.generator)
        return {"loss": loss, "psnr": quality}

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """Writes the moving average, if it is trained at full resolution, and measures its PSNR."""
        if step > STAGES[-1][1]:
            self.save(step)
        people = sample_latents(EXAM_SEED, range(EXAM_PEOPLE))
        images = torch.cat([self.mean.module(part) for part in torch.split(people, 64)])
        return {"exam": psnr(images, render(people)).item()}

    def save(self, step: int) -> None:
        """Writes the moving average."""
        recipe = {"recipe": "zeroshift.miniature.training.generator", "seed": str(self.seed), "step": str(step)}
        delivered = copy.deepcopy(self.generator)
        delivered.load_state_dict(self.mean.module.state_dict())
        save_generator(delivered, self.weights, recipe)


def lower(generator: StyleGAN2, resolution: int) -> StyleGAN2:
    """The same network up to a lower resolution; it shares its modules with `generator`."""
    channels = {size: width for size, width in generator.config["channels"].items() if int(size) <= resolution}
    cut = StyleGAN2(**{**generator.config, "resolution": resolution, "channels": channels})
    cut.mapping, cut.synthesis.input = generator.mapping, generator.synthesis.input
    for size in channels:
        setattr(cut.synthesis, f"b{size}", getattr(generator.synthesis, f"b{size}"))
    return cut


def fit(network: StyleGAN2, ws: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Loss, and PSNR without gradient, of the images of ws [N, num_ws, w_dim] against the truth."""
    images = network.synthesize(ws, noise_mode="none")
    return portrait_loss(images, truth), psnr(images.detach(), truth)


def kernels_and_others(parameters: Iterable[tuple[str, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """Splits named parameters into the kernels of styled convolutions and all others that are trained."""
    kernels: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in parameters:
        if name.endswith("noise_strength"):  # stays zero, because the truth contains no noise
            continue
        (kernels if parameter.ndim == 4 and "torgb" not in name else others).append(parameter)
    return kernels, others


def _truncated(network: StyleGAN2, latents: Tensor, truncation: Tensor) -> Tensor:
    """ws [N, num_ws, w_dim], truncated by one factor per row."""
    w = torch.lerp(network.mapping.w_avg, network.mapper_input(latents), truncation[:, None])
    return network.broadcast(w)
