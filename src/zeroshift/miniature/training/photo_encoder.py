"""The recipe of the encoder for photos: `zeroshift miniature train photo-encoder`.

The world draws people from random latents. The encoder learns their w in the generator, which is known, and offsets per
layer that bring the reconstruction closer to the photo. The generator is frozen.
"""

import copy
from pathlib import Path

import torch
from torch import Tensor

from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.io.outputs import require_writable
from zeroshift.miniature.exams.pixels import portrait_loss, psnr
from zeroshift.miniature.networks.encoders import weights_path
from zeroshift.miniature.networks.photo_encoder import PHOTO_ENCODER_CONFIG, PhotoEncoder, save_photo_encoder
from zeroshift.miniature.training.loop import Stateful, average, plateau_rate, run_training
from zeroshift.miniature.training.optimizers import Optimizers, seeded
from zeroshift.miniature.training.portraits import Portraits
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = ["train_photo_encoder"]

EXAM_SEED, EXAM_PEOPLE = 80001, 128
DECAY = 0.5  # final fraction of the steps in which the learning rates fall
KERNEL_RATE = 0.5  # Muon's learning rate, relative to AdamW's
OFFSET_WEIGHT = 0.02  # keeps the codes close to W, where an adapted generator can be trusted (e4e: L_d-reg)


def train_photo_encoder(
    out: Path = Path("training/photo-encoder"),
    *,
    steps: int = 6000,
    batch: int = 64,
    image_batch: int = 16,
    seed: int = 6,
    rate: float = 2e-3,
    minutes: float | None = None,
    threads: int = 1,
    weights: Path | None = None,
) -> int:
    """Train the encoder that inverts photos into the miniature StyleGAN2. The same command resumes.

    Examples:
      zeroshift miniature train photo-encoder --out training/photo-encoder --threads 2

    Args:
        out: Folder for the checkpoint, the log and the rendered portraits.
        steps: Training steps of `batch` portraits.
        batch: Portraits per step, compared in w.
        image_batch: Those of them that are drawn by the generator and compared in pixels, which takes most of the time.
        seed: Seed of weights and portraits.
        rate: Peak learning rate.
        minutes: Stop after so many minutes. The same command resumes.
        threads: Number of processor cores to use.
        weights: File to write. Default: replace the shipped file.

    Returns:
        The step reached.
    """
    torch.set_num_threads(threads)
    target = weights or weights_path("photo_encoder")
    require_writable(target.parent)
    training = _Training(Portraits(out / "portraits", seed), steps, batch, image_batch, rate, target, seed)
    reached = run_training(
        out, training.parts, training.update, steps=steps, minutes=minutes, save_every=300,
        settings={"seed": seed, "batch": batch, "image_batch": image_batch, "rate": rate},
        evaluate=training.evaluate, evaluate_every=300,
    )  # fmt: skip
    training.save()
    return reached


class _Training:
    """The state of one training of the encoder."""

    def __init__(
        self, portraits: Portraits, steps: int, batch: int, image_batch: int, rate: float, weights: Path, seed: int
    ):
        self.portraits, self.steps, self.batch, self.image_batch = portraits, steps, batch, image_batch
        self.rate, self.weights = rate, weights
        generator = load_generator("miniature").eval().requires_grad_(False)
        assert isinstance(generator, StyleGAN2)
        self.generator = generator
        self.encoder = seeded(lambda: PhotoEncoder(**PHOTO_ENCODER_CONFIG), seed)
        self.encoder.mean.copy_(generator.mapping.w_avg)
        self.optimizer = Optimizers([self.encoder], weight_decay=0.02)
        self.average = average(self.encoder, 0.995)
        self.parts: dict[str, Stateful] = {
            "encoder": self.encoder, **self.optimizer.parts, "average": self.average,
        }  # fmt: skip

    def update(self, step: int) -> dict[str, Tensor]:
        """One step of the training."""
        latents, truncation, photos = self.portraits.batch(step, self.batch)
        with torch.no_grad():
            truth = torch.lerp(self.generator.mapping.w_avg, self.generator.mapper_input(latents), truncation[:, None])
        w, offsets = self.encoder.parts(photos)
        drawn = slice(self.image_batch)
        images = self.generator.synthesize(w[drawn, None] + offsets[drawn])
        apart = (w - truth).square().mean()
        loss = portrait_loss(images, photos[drawn]) + apart + OFFSET_WEIGHT * offsets.square().mean()
        now = self.rate * plateau_rate(step, self.steps, decay=DECAY)
        self.optimizer.step(loss, now, KERNEL_RATE * now)
        self.average.update_parameters(self.encoder)
        return {"loss": loss, "w": apart, "psnr": psnr(images.detach(), photos[drawn])}

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """Writes the moving average, and measures the PSNR of its reconstructions of people it never saw."""
        self.save()
        photos = render(sample_latents(EXAM_SEED, range(EXAM_PEOPLE)))
        encoder = copy.deepcopy(self.average.module).eval()
        images = torch.cat([self.generator.synthesize(encoder(part)) for part in photos.split(64)])
        return {"exam": psnr(images, photos).item()}

    def save(self) -> None:
        """Writes the moving average."""
        averaged = self.average.module
        assert isinstance(averaged, PhotoEncoder)
        save_photo_encoder(averaged, self.weights)
