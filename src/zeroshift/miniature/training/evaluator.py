"""The recipe of the held-out evaluator: `zeroshift miniature train evaluator`.

Its image tower is initialized from the probe's, because recognizing what an image shows is half of matching it with
texts. It shares nothing with the guidance encoder, of which it must be independent.
"""

from pathlib import Path

import torch

from zeroshift.miniature.networks.encoders import EVALUATOR_CONFIG, Evaluator, load_probe, weights_path
from zeroshift.miniature.training.augment import Augmentation
from zeroshift.miniature.training.contrastive import ContrastiveSettings, train_contrastive
from zeroshift.miniature.training.data import Blocks
from zeroshift.miniature.training.loop import Precision
from zeroshift.miniature.training.optimizers import seeded

__all__ = ["train_evaluator"]

# Different from the guidance encoder's: no zoom or shift, more blur and cutout, weaker noise.
AUGMENTATION = Augmentation(
    contrast=0.4, brightness=0.25, blur=0.4, low_pass=0.25, cutout=0.4, noise=0.4, noise_level=0.2
)


def train_evaluator(
    out: Path = Path("training/evaluator"),
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
    """Train the held-out evaluator and write its weights. The same command resumes an interrupted training.

    The probe must be trained first.

    Examples:
      zeroshift miniature train evaluator --out training/evaluator --threads 2

    Args:
        out: Folder for the checkpoint and the log.
        images: Folder of rendered training images, shared with guidance encoder and probe. Missing images are rendered.
        blocks: Number of blocks of 384 images to train on.
        block_seed: Selects the people in the images.
        steps: Training steps of 120 images and captions. A larger number extends a finished training.
        seed: Seed of initial weights, batches and augmentations.
        start: File of initial weights, such as the shipped file. Default: random weights and the probe's tower.
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
        AUGMENTATION, seed=seed, steps=steps, warm_steps=0, rate=rate, precision=precision, start=str(start or "")
    )
    model = seeded(lambda: Evaluator(**EVALUATOR_CONFIG), seed)
    tower = {name: value for name, value in load_probe().tower.state_dict().items() if not name.startswith("head.")}
    model.visual.load_state_dict({**model.visual.state_dict(), **tower})
    target = weights or weights_path("judge")
    return train_contrastive(model, out, Blocks(images, blocks, block_seed), settings, weights=target, minutes=minutes)
