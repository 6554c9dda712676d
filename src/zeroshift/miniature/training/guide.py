"""Trains the guide: `python -m zeroshift.miniature.train_guide --out training/guide`."""

from pathlib import Path

import torch
import tyro

from zeroshift.miniature.networks.encoders import build_guide, weights_path
from zeroshift.miniature.training.augment import Augmentation
from zeroshift.miniature.training.contrastive import ContrastiveSettings, train_contrastive
from zeroshift.miniature.training.data import Blocks
from zeroshift.miniature.training.loop import Precision
from zeroshift.miniature.training.optimisers import seeded

__all__ = ["train_guide"]

AUGMENTATION = Augmentation(
    zoom=0.06,
    shift=0.03,
    contrast=0.25,
    brightness=0.15,
    blur=0.25,
    low_pass=0.1,
    cutout=0.2,
    noise=0.4,
    noise_level=0.25,
)


def train_guide(
    out: Path = Path("training/guide"),
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
    """Trains the guide, or goes on where it stopped, and writes its weights.

    Args:
        out: folder of checkpoint and log.
        images: folder of the rendered training images, shared with the judge and the probe; filled where it is empty.
        blocks: how many blocks of 384 images to train on.
        block_seed: which blocks; those of another seed show other people.
        steps: of 120 images and captions; more than before extend a finished training.
        seed: of first weights, batches and changes to the images.
        start: weights to start from in place of fresh ones, such as the shipped file; gives no supervised warm-up.
        rate: peak learning rate.
        precision: arithmetic of the networks; bf16 is up to twice as fast on some processors, slower on others.
        minutes: stop after so many minutes; the same command goes on later.
        threads: processor cores to use.
        weights: where the result goes; the place of the shipped file if not given.

    Returns:
        The step reached.
    """
    torch.set_num_threads(threads)
    settings = ContrastiveSettings(
        AUGMENTATION, seed=seed, steps=steps, warm_steps=0 if start else 500, rate=rate, grey=24,
        precision=precision, start=str(start or ""),
    )  # fmt: skip
    model = seeded(build_guide, seed)
    target = weights or weights_path("guide")
    return train_contrastive(model, out, Blocks(images, blocks, block_seed), settings, weights=target, minutes=minutes)


if __name__ == "__main__":
    tyro.cli(train_guide)
