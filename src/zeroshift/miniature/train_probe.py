"""Trains the probe: `python -m zeroshift.miniature.train_probe --out training/probe`."""

from pathlib import Path
from typing import cast

import torch
import tyro

from .augment import Augmentation, augment
from .data import Blocks
from .encoders import PROBE_CONFIG, Probe, save_probe, weights_path
from .measure import DomainExam, probe_report
from .optimisers import Optimisers, seeded
from .reading import factor_loss, visibility
from .training import average, cosine_rate, run_training, step_stream

__all__ = ["train_probe"]

# Faint: it must read finished pictures of a generator, which are softer than rendered ones, but exactly.
AUGMENTATION = Augmentation(contrast=0.05, brightness=0.03, blur=0.15, noise=0.3, noise_level=0.06)
KERNEL_RATE = 0.5  # Muon's learning rate as a part of AdamW's


def train_probe(
    out: Path = Path("training/probe"),
    *,
    images: Path = Path("training/blocks"),
    blocks: int = 400,
    steps: int = 1600,
    seed: int = 3,
    rate: float = 2e-3,
    minutes: float | None = None,
    threads: int = 1,
    weights: Path | None = None,
) -> int:
    """Trains the probe, or goes on where it stopped, and writes its weights.

    Args:
        out: folder of checkpoint and log.
        images: folder of the rendered training images, shared with the guide and the judge; filled where it is empty.
        blocks: how many blocks of 384 images to train on.
        steps: of 192 images; more than before extend a finished training.
        rate: peak learning rate.
        minutes: stop after so many minutes; the same command goes on later.
        threads: processor cores to use.
        weights: where the result goes; the place of the shipped file if not given.

    Returns:
        The step reached.
    """
    torch.set_num_threads(threads)
    target = weights or weights_path("probe")
    source = Blocks(images, blocks, seed=1)
    probe = seeded(lambda: Probe(**PROBE_CONFIG), seed)
    optimiser = Optimisers([probe], weight_decay=0.02)
    ema = average(probe, 0.995)
    averaged = cast(Probe, ema.module)
    exam = DomainExam.make(seed=seed + 1000, per_domain=8)

    def update(step: int) -> dict[str, torch.Tensor]:
        generator = step_stream(seed, "batch", step)
        batch = source.batch(generator, source.available(step), groups=4, people=8)
        outputs = probe.tower(augment(batch.images, AUGMENTATION, generator))
        loss = factor_loss(outputs, batch.positions, visibility(batch.domains))
        now = cosine_rate(step, steps, rate, warmup=30)
        optimiser.step(loss, now, KERNEL_RATE * now)
        ema.update_parameters(probe)
        return {"loss": loss}

    def evaluate(step: int) -> dict[str, float]:
        save_probe(averaged.eval(), target)
        return probe_report(averaged, exam)

    probe.train()
    reached = run_training(
        out, {"probe": probe, **optimiser.parts, "average": ema}, update, steps=steps, minutes=minutes,
        settings={"seed": seed, "rate": rate, "blocks": blocks}, evaluate=evaluate,
        save_every=250, evaluate_every=250,
    )  # fmt: skip
    save_probe(averaged.eval(), target)
    return reached


if __name__ == "__main__":
    tyro.cli(train_probe)
