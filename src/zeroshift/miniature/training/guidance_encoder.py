"""The recipe of the guidance encoder: `zeroshift miniature train guidance-encoder`."""

from pathlib import Path

import torch

from zeroshift.miniature.networks.encoders import build_guidance_encoder, weights_path
from zeroshift.miniature.training.augment import Augmentation
from zeroshift.miniature.training.contrastive import ContrastiveSettings, train_contrastive
from zeroshift.miniature.training.data import Blocks
from zeroshift.miniature.training.loop import Precision
from zeroshift.miniature.training.optimizers import seeded

__all__ = ["train_guidance_encoder"]

AUGMENTATION = Augmentation(
    zoom=0.06, shift=0.03, contrast=0.25, brightness=0.15, blur=0.25, low_pass=0.1, cutout=0.2, noise=0.4,
    noise_level=0.25,
)  # fmt: skip


def train_guidance_encoder(
    out: Path = Path("training/guidance-encoder"),
    *,
    images: Path = Path("training/blocks"),
    blocks: int = 400,
    block_seed: int = 1,
    steps: int = 4500,
    seed: int = 1,
    start: Path | None = None,
    rate: float = 2e-3,
    precision: Precision = "float32",
    minutes: float | None = None,
    threads: int = 1,
    weights: Path | None = None,
) -> int:
    """Train the guidance encoder and write its weights. The same command resumes an interrupted training.

    Examples:
      zeroshift miniature train guidance-encoder --out training/guidance-encoder --threads 2

    Args:
        out: Folder for the checkpoint and the log.
        images: Folder of rendered training images, shared with evaluator and probe. Missing images are rendered.
        blocks: Number of blocks of 384 images to train on.
        block_seed: Selects the people in the images.
        steps: Training steps of 120 images and captions. A larger number extends a finished training.
        seed: Seed of initial weights, batches and augmentations.
        start: File of initial weights, such as the shipped file. Skips the supervised warm-up. Default: random weights.
        rate: Peak learning rate.
        precision: Arithmetic of the network; bf16 is up to twice as fast on some processors and slower on others.
        minutes: Stop after so many minutes. The same command resumes.
        threads: Number of processor cores to use.
        weights: File to write. Default: replace the shipped file.

    Returns:
        The step reached.
    """
    torch.set_num_threads(threads)
    settings = ContrastiveSettings(
        AUGMENTATION, seed=seed, steps=steps, warm_steps=0 if start else 500, rate=rate, gray=24,
        precision=precision, start=str(start or ""),
    )  # fmt: skip
    model = seeded(build_guidance_encoder, seed)
    target = weights or weights_path("guide")
    return train_contrastive(model, out, Blocks(images, blocks, block_seed), settings, weights=target, minutes=minutes)
