"""Trains the judge: `python -m zeroshift.miniature.train_judge --out training/judge`.

Its image tower starts as the probe's: to tell what an image shows is half of telling what a text says of it. The guide,
from which the judge must be independent, shares nothing with either.
"""

from pathlib import Path

import torch
import tyro

from zeroshift.miniature.networks.encoders import JUDGE_CONFIG, Judge, load_probe, weights_path
from zeroshift.miniature.training.augment import Augmentation
from zeroshift.miniature.training.contrastive import ContrastiveSettings, train_contrastive
from zeroshift.miniature.training.data import Blocks
from zeroshift.miniature.training.loop import Precision
from zeroshift.miniature.training.optimisers import seeded

__all__ = ["train_judge"]

# Other changes than the guide's: nothing is moved, more is blurred and covered, the noise is weaker.
AUGMENTATION = Augmentation(
    contrast=0.4, brightness=0.25, blur=0.4, low_pass=0.25, cutout=0.4, noise=0.4, noise_level=0.2
)


def train_judge(
    out: Path = Path("training/judge"),
    *,
    images: Path = Path("training/blocks"),
    blocks: int = 400,
    block_seed: int = 1,
    steps: int = 2050,
    seed: int = 2,
    start: Path | None = None,
    rate: float = 2e-3,
    precision: Precision = "float32",
    minutes: float | None = None,
    threads: int = 1,
    weights: Path | None = None,
) -> int:
    """Trains the judge, or goes on where it stopped, and writes its weights. The probe must be there already.

    Args:
        out: folder of checkpoint and log.
        images: folder of the rendered training images, shared with the guide and the probe; filled where it is empty.
        blocks: how many blocks of 384 images to train on.
        block_seed: which blocks; those of another seed show other people.
        steps: of 120 images and captions; more than before extend a finished training.
        start: weights to start from in place of fresh ones and the probe's, such as the shipped file.
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
        AUGMENTATION, seed=seed, steps=steps, warm_steps=0, rate=rate, precision=precision, start=str(start or "")
    )
    model = seeded(lambda: Judge(**JUDGE_CONFIG), seed)
    seen = {name: value for name, value in load_probe().tower.state_dict().items() if not name.startswith("head.")}
    model.visual.load_state_dict({**model.visual.state_dict(), **seen})
    target = weights or weights_path("judge")
    return train_contrastive(model, out, Blocks(images, blocks, block_seed), settings, weights=target, minutes=minutes)


if __name__ == "__main__":
    tyro.cli(train_judge)
