"""Photos of persons, the training images of the diffusion models: the generator's portraits that are not truncated."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zeroshift.core.rng import normal
from zeroshift.miniature.training.cache import cached_images, to_float
from zeroshift.miniature.training.loop import step_stream
from zeroshift.miniature.training.portraits import Portraits
from zeroshift.miniature.world.factors import NUM_FACTORS
from zeroshift.miniature.world.renderer import render

__all__ = ["Photos"]


class Photos:
    """The renderer's photos of random persons, in blocks of files in `folder`; missing blocks are rendered.

    Blocks have the same names and contents as those of `Portraits`, so both can share a folder.
    """

    FIRST, STEPS_PER_BLOCK = Portraits.FIRST, 10

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed = folder, seed
        self.pixels: list[NDArray[np.uint8]] = []

    def batch(self, purpose: str, step: int, count: int) -> Tensor:
        """Random photos [count, 3, 64, 64] in [-1, 1]. The number of blocks they are drawn from grows with the step."""
        blocks = self.FIRST + step // self.STEPS_PER_BLOCK
        while len(self.pixels) < blocks:
            self.pixels.append(self._block(len(self.pixels)))
        rows = torch.randint(blocks * Portraits.BLOCK, (count,), generator=step_stream(self.seed, purpose, step))
        pixels = np.stack([self.pixels[row // Portraits.BLOCK][row % Portraits.BLOCK] for row in rows.tolist()])
        return to_float(torch.from_numpy(pixels))

    def _block(self, number: int) -> NDArray[np.uint8]:
        block = number + number // (Portraits.TRUNCATED - 1)  # skips the truncated ones

        def draw() -> Tensor:
            samples = range(block * Portraits.BLOCK, (block + 1) * Portraits.BLOCK)
            return render(normal((NUM_FACTORS,), self.seed, "portraits", samples=samples))

        return cached_images(self.folder / f"seed{self.seed}-block{block:05d}.npy", draw)
