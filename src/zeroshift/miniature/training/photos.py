"""Photos of persons for the recipes of the diffusion models: the portraits of `train_generator`, less the truncated."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zeroshift.core.rng import normal
from zeroshift.io.atomic import atomic_write
from zeroshift.miniature.training.loop import step_stream
from zeroshift.miniature.training.portraits import Portraits
from zeroshift.miniature.world.factors import NUM_FACTORS
from zeroshift.miniature.world.renderer import render

__all__ = ["Photos"]


class Photos:
    """The renderer's photos of random persons, in blocks kept in `folder` and rendered where they are missing.

    Blocks have the names and the content that `train_generator.Portraits` gives them, so a folder may serve both.
    """

    FIRST, STEPS_PER_BLOCK = Portraits.FIRST, 10

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed = folder, seed
        self.pixels: list[np.ndarray] = []

    def batch(self, purpose: str, step: int, count: int) -> Tensor:
        """Random photos of those available at a step, whose number grows: [count, 3, 64, 64] in [-1, 1]."""
        blocks = self.FIRST + step // self.STEPS_PER_BLOCK
        while len(self.pixels) < blocks:
            self.pixels.append(self._block(len(self.pixels)))
        rows = torch.randint(blocks * Portraits.BLOCK, (count,), generator=step_stream(self.seed, purpose, step))
        pixels = np.stack([self.pixels[row // Portraits.BLOCK][row % Portraits.BLOCK] for row in rows.tolist()])
        return torch.from_numpy(pixels).float() / 127.5 - 1

    def _block(self, number: int) -> np.ndarray:
        block = number + number // (Portraits.TRUNCATED - 1)  # the last one of each TRUNCATED is truncated
        path = self.folder / f"seed{self.seed}-block{block:05d}.npy"
        if not path.exists():
            samples = range(block * Portraits.BLOCK, (block + 1) * Portraits.BLOCK)
            images = render(normal((NUM_FACTORS,), self.seed, "portraits", samples=samples))
            pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.save(file, pixels)
        return np.load(path, mmap_mode="r")
