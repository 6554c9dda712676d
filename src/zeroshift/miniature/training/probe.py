"""Trains the probe: `python -m zeroshift.miniature.train_probe --out training/probe`."""

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
import tyro
from rich.progress import track
from safetensors.torch import load_file, save_file

from zeroshift.io.atomic import atomic_write
from zeroshift.miniature.exams.measure import DomainExam, probe_report
from zeroshift.miniature.networks.alignment import align_faces
from zeroshift.miniature.networks.encoders import (
    PROBE_CONFIG,
    ConvTower,
    FaceTower,
    Probe,
    load_weights,
    readings,
    save_probe,
    weights_path,
)
from zeroshift.miniature.training.augment import Augmentation, augment
from zeroshift.miniature.training.data import Batch, Blocks
from zeroshift.miniature.training.factor_loss import factor_loss, visibility
from zeroshift.miniature.training.loop import Precision, arithmetic, average, cosine_rate, run_training, step_stream
from zeroshift.miniature.training.optimisers import Optimisers, seeded

__all__ = ["train_probe"]

# Faint: it must read finished pictures of a generator, which are softer than rendered ones, but exactly.
AUGMENTATION = Augmentation(contrast=0.05, brightness=0.03, blur=0.15, noise=0.3, noise_level=0.06)
Reader = Callable[[Batch, torch.Generator], torch.Tensor]  # -> [N, NUM_READINGS]
POSE_NOISE = {"x_position": 0.03, "y_position": 0.03, "scale": 0.03, "yaw": 0.03, "tilt": 0.05}  # half the errors
NEW_BLOCKS = 0.5  # a step: what counts most for the probe is to see many people
KERNEL_RATE = 0.5  # Muon's learning rate as a part of AdamW's


def train_probe(
    out: Path = Path("training/probe"),
    *,
    images: Path = Path("training/blocks"),
    blocks: int = 400,
    block_seed: int = 1,
    steps: int = 2600,
    face_steps: int = 5600,
    seed: int = 3,
    start: Path | None = None,
    rate: float = 2e-3,
    precision: Precision = "float32",
    minutes: float | None = None,
    threads: int = 1,
    weights: Path | None = None,
) -> int:
    """Trains the probe, or goes on where it stopped, and writes its weights.

    First the tower that sees whole pictures, then, with that one frozen, the tower that sees aligned faces.

    Args:
        out: folder of checkpoints and logs.
        images: folder of the rendered training images, shared with the guide and the judge; filled where it is empty.
        blocks: how many blocks of 384 images to train on.
        block_seed: which blocks; those of another seed show other people.
        steps: of the first tower, of 192 images; more than before extend a finished training.
        face_steps: of the second tower.
        seed: of first weights, batches and changes to the images.
        start: weights to start from in place of fresh ones, such as the shipped file.
        rate: peak learning rate.
        precision: arithmetic of the networks; bf16 is up to twice as fast on some processors, slower on others.
        minutes: stop after so many minutes; the same command goes on later.
        threads: processor cores to use.
        weights: where the result goes; the place of the shipped file if not given.

    Returns:
        The step reached, over both towers.
    """
    torch.set_num_threads(threads)
    began = time.monotonic()
    target = weights or weights_path("probe")
    source = Blocks(images, blocks, block_seed)
    probe = seeded(lambda: Probe(**PROBE_CONFIG), seed)
    if start:
        load_weights(probe, start)
    exam = DomainExam.make(seed=seed + 1000, per_domain=8)

    def train(
        folder: Path, tower: ConvTower | FaceTower, read: Reader, steps: int, minutes: float | None, new_blocks: float
    ) -> int:
        """Trains one of the probe's towers, which then holds its average.

        Args:
            read: gives outputs of a batch.
            new_blocks: how many more blocks a step draws from than the one before.
        """
        optimiser = Optimisers([tower], weight_decay=0.02)
        ema = average(tower, 0.995)

        def update(step: int) -> dict[str, torch.Tensor]:
            generator = step_stream(seed, "batch", step)
            batch = source.batch(generator, source.available(step, new_blocks), groups=4, people=8)
            loss = factor_loss(read(batch, generator).float(), batch.positions, visibility(batch.domains))
            now = cosine_rate(step, steps, rate, warmup=30)
            optimiser.step(loss, now, KERNEL_RATE * now)
            ema.update_parameters(tower)
            return {"loss": loss}

        def evaluate(step: int) -> dict[str, float]:
            averaged = copy.deepcopy(probe)
            (averaged.tower if tower is probe.tower else averaged.face).load_state_dict(ema.module.state_dict())
            save_probe(averaged.eval(), target)
            return probe_report(averaged, exam)

        tower.train().requires_grad_(True)
        reached = run_training(
            folder, {"tower": tower, **optimiser.parts, "average": ema}, update, steps=steps, minutes=minutes,
            settings={
                "seed": seed, "rate": rate, "blocks": blocks, "block_seed": block_seed, "start": str(start or ""),
                "precision": precision,
            },
            evaluate=evaluate, save_every=250, evaluate_every=500,
        )  # fmt: skip
        tower.load_state_dict(ema.module.state_dict())
        tower.eval().requires_grad_(False)
        return reached

    def whole(batch: Batch, generator: torch.Generator) -> torch.Tensor:
        images = augment(batch.images, AUGMENTATION, generator)
        with arithmetic(precision):
            return probe.tower(images)

    probe.eval().requires_grad_(False)
    reached = train(out, probe.tower, whole, steps, minutes, NEW_BLOCKS)
    if reached == steps:
        known = _all_outputs(probe.tower, source, out / f"outputs-{steps}.safetensors")

        def with_face(batch: Batch, generator: torch.Generator) -> torch.Tensor:
            outputs = known[batch.rows].float()
            pose = readings(outputs)
            for name, amount in POSE_NOISE.items():  # the second tower sees every face in many slightly other layouts
                pose[name] = pose[name] + amount * torch.randn(len(outputs), generator=generator)
            faces = augment(align_faces(batch.images, pose), AUGMENTATION, generator)
            with arithmetic(precision):
                return outputs + probe.face(faces)

        left = None if minutes is None else max(0.0, minutes - (time.monotonic() - began) / 60)
        reached += train(out / "face", probe.face, with_face, face_steps, left, math.inf)  # all are rendered by now
    save_probe(probe, target)
    return reached


@torch.no_grad()
def _all_outputs(tower: ConvTower, blocks: Blocks, path: Path) -> torch.Tensor:
    """What a frozen tower says of every image of the blocks, [images, NUM_READINGS], kept in a file."""
    if not path.exists():
        parts = [tower(blocks.block(block).images).half() for block in track(range(blocks.count), "reading")]
        with atomic_write(path) as temporary:
            save_file({"outputs": torch.cat(parts)}, temporary)
    return load_file(path)["outputs"]


if __name__ == "__main__":
    tyro.cli(train_probe)
