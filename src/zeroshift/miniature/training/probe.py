"""The recipe of the probe: `zeroshift miniature train probe`."""

import contextlib
import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.io.checksums import load_tensors, save_tensors
from zeroshift.io.outputs import require_writable
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
from zeroshift.miniature.training.optimizers import Optimizers, seeded

__all__ = ["train_probe"]

Reader = Callable[[Batch, torch.Generator], Tensor]  # -> outputs [N, NUM_READINGS]

# Weak: the probe must read a generator's images, which are softer than rendered ones, with high precision.
AUGMENTATION = Augmentation(contrast=0.05, brightness=0.03, blur=0.15, noise=0.3, noise_level=0.06)
# Noise on the pose in training the second tower: half of the first one's errors.
POSE_NOISE = {"x_position": 0.03, "y_position": 0.03, "scale": 0.03, "yaw": 0.03, "tilt": 0.05}
NEW_BLOCKS = 0.5  # blocks that become available per step; the number of people matters most for the probe
KERNEL_RATE = 0.5  # Muon's learning rate, relative to AdamW's


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
    """Train the probe and write its weights. The same command resumes an interrupted training.

    The tower that reads whole images is trained first. It is then frozen, and the tower that reads aligned faces is
    trained.

    Examples:
      zeroshift miniature train probe --out training/probe --threads 2

    Args:
        out: Folder for checkpoints and logs.
        images: Folder of rendered training images, shared with both encoders. Missing images are rendered.
        blocks: Number of blocks of 384 images to train on.
        block_seed: Selects the people in the images.
        steps: Training steps of the first tower, of 192 images. A larger number extends a finished training.
        face_steps: Training steps of the second tower.
        seed: Seed of initial weights, batches and augmentations.
        start: File of initial weights, such as the shipped file. Default: random weights.
        rate: Peak learning rate.
        precision: Arithmetic of the network; bf16 is up to twice as fast on some processors and slower on others.
        minutes: Stop after so many minutes. The same command resumes.
        threads: Number of processor cores to use.
        weights: File to write. Default: replace the shipped file.

    Returns:
        The step reached, summed over both towers.
    """
    torch.set_num_threads(threads)
    start_time = time.monotonic()
    settings = _Settings(seed, rate, blocks, block_seed, str(start or ""), precision)
    target = weights or weights_path("probe")
    require_writable(target.parent)
    training = _Training(images, settings, target)
    reached = training.train(training.probe.tower, training.read_image, out, steps, minutes, NEW_BLOCKS)
    if reached == steps:
        left = None if minutes is None else max(0.0, minutes - (time.monotonic() - start_time) / 60)
        read_face = training.face_reader(out / f"outputs-{steps}.safetensors")
        # All blocks have been rendered by now, so all are available from the first step.
        reached += training.train(training.probe.face, read_face, out / "face", face_steps, left, math.inf)
    training.save()
    return reached


@dataclass(frozen=True)
class _Settings:
    """The settings that must be the same when a training is resumed."""

    seed: int
    rate: float
    blocks: int
    block_seed: int
    start: str
    precision: Precision


class _Training:
    """The state of one training of the probe."""

    def __init__(self, images: Path, settings: _Settings, weights: Path):
        self.settings, self.weights = settings, weights
        self.blocks = Blocks(images, settings.blocks, settings.block_seed)
        self.probe = seeded(lambda: Probe(**PROBE_CONFIG), settings.seed)
        if settings.start:
            load_weights(self.probe, settings.start)
        self.probe.eval().requires_grad_(False)
        self.exam = DomainExam.make(seed=settings.seed + 1000, per_domain=8)

    def train(
        self, tower: ConvTower | FaceTower, read: Reader, folder: Path, steps: int, minutes: float | None,
        new_blocks: float,
    ) -> int:  # fmt: skip
        """Trains a tower of the probe, replaces its weights by their moving average, and returns the step reached.

        Args:
            read: computes the outputs for a batch.
            new_blocks: how many blocks become available per step, see `Blocks.available`.
        """
        seed, rate = self.settings.seed, self.settings.rate
        optimizer = Optimizers([tower], weight_decay=0.02)
        ema = average(tower, 0.995)

        def update(step: int) -> dict[str, Tensor]:
            generator = step_stream(seed, "batch", step)
            batch = self.blocks.batch(generator, self.blocks.available(step, new_blocks), groups=4, people=8)
            loss = factor_loss(read(batch, generator).float(), batch.positions, visibility(batch.domains))
            now = cosine_rate(step, steps, rate, warmup=30)
            optimizer.step(loss, now, KERNEL_RATE * now)
            ema.update_parameters(tower)
            return {"loss": loss}

        def evaluate(step: int) -> dict[str, float]:
            averaged = copy.deepcopy(self.probe)
            part = averaged.tower if tower is self.probe.tower else averaged.face
            part.load_state_dict(ema.module.state_dict())
            save_probe(averaged.eval(), self.weights)
            return probe_report(averaged, self.exam)

        tower.train().requires_grad_(True)
        reached = run_training(
            folder, {"tower": tower, **optimizer.parts, "average": ema}, update, steps=steps, minutes=minutes,
            settings=asdict(self.settings), evaluate=evaluate, save_every=250, evaluate_every=500,
        )  # fmt: skip
        tower.load_state_dict(ema.module.state_dict())
        tower.eval().requires_grad_(False)
        return reached

    def read_image(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Outputs of the first tower for augmented images."""
        images = augment(batch.images, AUGMENTATION, generator)
        with arithmetic(self.settings.precision):
            outputs: Tensor = self.probe.tower(images)
            return outputs

    def face_reader(self, path: Path) -> Reader:
        """A function that adds the second tower's outputs to the first one's, which are computed once, into `path`."""
        tower_outputs = _all_outputs(self.probe.tower, self.blocks, path)

        def read(batch: Batch, generator: torch.Generator) -> Tensor:
            outputs = tower_outputs[batch.rows].float()
            pose = readings(outputs)
            for name, amount in POSE_NOISE.items():  # augments the alignment
                pose[name] = pose[name] + amount * torch.randn(len(outputs), generator=generator)
            faces = augment(align_faces(batch.images, pose), AUGMENTATION, generator)
            with arithmetic(self.settings.precision):
                total: Tensor = outputs + self.probe.face(faces)
                return total

        return read

    def save(self) -> None:
        """Writes the probe."""
        save_probe(self.probe, self.weights)


@torch.no_grad()
def _all_outputs(tower: ConvTower, blocks: Blocks, path: Path) -> Tensor:
    """Outputs [images, NUM_READINGS] of a frozen tower for every image of the blocks, cached in a file."""
    with contextlib.suppress(ZeroshiftError):  # missing or damaged
        return load_tensors(path)[0]["outputs"]
    outputs = torch.cat([tower(blocks.block(block).images).half() for block in track(range(blocks.count), "reading")])
    save_tensors(path, {"outputs": outputs})
    return outputs
