"""Trains the miniature diffusion model, a DDPM of the photos of persons, and writes it as a folder of diffusers."""

import copy
from pathlib import Path
from typing import Any, cast

import torch
import tyro
from torch import Tensor

from zeroshift.generators.checkpoints.diffusers import write_pipeline
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.miniature.exams.diffusion_exam import print_exam
from zeroshift.miniature.networks.encoders import weights_path
from zeroshift.miniature.training.denoising import SCHEDULER, rate_share, velocity_loss
from zeroshift.miniature.training.loop import Precision, arithmetic, average, float32_norms, run_training, step_stream
from zeroshift.miniature.training.optimisers import Optimisers, seeded
from zeroshift.miniature.training.photos import Photos
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = ["UNET", "train_diffusion"]

# Narrow where pixels are many; most parameters lie where they are few. Attention at 8x8 alone. Multiples of 16, as a
# processor computes 24 channels at the cost of 32.
UNET: dict[str, Any] = {
    "sample_size": 64, "in_channels": 3, "out_channels": 3, "layers_per_block": 1,
    "block_out_channels": (16, 32, 96, 192), "norm_num_groups": 8, "attention_head_dim": 32,
    "down_block_types": ("DownBlock2D", "DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"),
}  # fmt: skip
KERNEL_RATE = 0.5  # Muon's learning rate as a part of AdamW's
EXAM_SEED, EXAM_PEOPLE = 80002, 128


def train_diffusion(
    out: Path = Path("training/diffusion"),
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
    """Trains the diffusion model, or goes on where it stopped, and writes the weights of its moving average.

    Args:
        out: folder of checkpoint and log.
        images: folder of rendered portraits, shared with the generator's recipe; filled where photos are missing.
        steps: of `batch` photos; may be changed between calls, as the learning rate only falls at the end.
        batch: photos a step.
        seed: of weights, photos and noise. The photos of seed 4 are those of the generator's recipe.
        rate: peak learning rate.
        precision: arithmetic of the network; bf16 is up to twice as fast on some processors, slower on others.
        minutes: stop after so many minutes; the same command goes on later.
        threads: processor cores to use.
        weights: folder where the result goes; the place of the shipped one if not given.

    Returns:
        The step reached.
    """
    torch.set_num_threads(threads)
    target = weights or weights_path("diffusion").with_suffix("")
    model = seeded(lambda: Diffusion(UNET, SCHEDULER), seed).to(memory_format=torch.channels_last)
    float32_norms(model)
    optimiser = Optimisers([model], weight_decay=0.0)
    ema = average(model, 0.995)
    photos, alphas = Photos(images, seed), model.schedule.alphas
    exam = render(sample_latents(EXAM_SEED, range(EXAM_PEOPLE)))

    def loss_of(network: Any, pictures: Tensor, random: torch.Generator) -> Tensor:
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        return velocity_loss(lambda x, t: network.unet(x, t).sample, pictures, alphas, random)

    def update(step: int) -> dict[str, Tensor]:
        with arithmetic(precision):
            loss = loss_of(model, photos.batch("photos", step, batch), step_stream(seed, "noise", step))
        now = rate * rate_share(step, steps)
        optimiser.step(loss, now, KERNEL_RATE * now)
        ema.update_parameters(model)
        return {"loss": loss}

    def save() -> None:
        write_pipeline(copy.deepcopy(cast(Diffusion, ema.module)).half(), target)

    @torch.no_grad()
    def evaluate(step: int) -> dict[str, float]:
        save()
        parts = [loss_of(ema.module, part, step_stream(EXAM_SEED, "noise", 0)) for part in exam.split(64)]
        return {"exam": float(torch.stack(parts).mean())}

    reached = run_training(
        out, {"model": model, **optimiser.parts, "average": ema}, update, steps=steps, minutes=minutes,
        settings={"seed": seed, "batch": batch, "rate": rate, "precision": precision},
        evaluate=evaluate, save_every=200, evaluate_every=400,
    )  # fmt: skip
    save()
    if reached == steps:
        print_exam(load_generator(target), EXAM_SEED)
    return reached


if __name__ == "__main__":
    tyro.cli(train_diffusion)
