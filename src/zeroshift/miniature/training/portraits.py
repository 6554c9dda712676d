"""Portraits: rendered photos of persons, also truncated ones, as training images of the generator."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zeroshift.core.rng import normal, stream
from zeroshift.miniature.training.cache import cached_images, to_float
from zeroshift.miniature.training.loop import step_stream
from zeroshift.miniature.world.anatomy import build_scene
from zeroshift.miniature.world.domains import SOURCE
from zeroshift.miniature.world.factors import FACTORS, NUM_FACTORS, values
from zeroshift.miniature.world.media import DEPICT

__all__ = ["Portraits", "portrait"]


@torch.no_grad()
def portrait(latents: Tensor, truncation: Tensor) -> Tensor:
    """Photos with truncated scalar factors: latents [N, 32] and truncation psi [N] -> images [N, 3, 64, 64].

    Scalars are moved toward their middle. Classes are not changed; otherwise truncated people would have
    half-transparent glasses.
    """
    truncated = values(latents)
    for factor in FACTORS:
        if not factor.is_class:
            middle = (factor.low + factor.high) / 2
            truncated[factor.name] = middle + truncation * (truncated[factor.name] - middle)
    return DEPICT[SOURCE.medium](build_scene(truncated, SOURCE.being), torch.zeros) * 2 - 1


class Portraits:
    """Random portraits in blocks of files in `folder`; missing blocks are rendered. Every eighth block is truncated."""

    BLOCK = 256  # portraits per block
    FIRST, STEPS_PER_BLOCK = 16, 20  # blocks available at the first step; steps per further block
    TRUNCATED = 8  # every eighth block is truncated

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed = folder, seed
        self.latents = torch.empty(0, NUM_FACTORS)
        self.truncation = torch.empty(0)
        self.pixels: list[NDArray[np.uint8]] = []

    def batch(self, step: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random portraits: latents [N, 32], truncation [N], images [N, 3, 64, 64] in [-1, 1].

        The number of blocks that they are drawn from grows with the step.
        """
        while len(self.pixels) < self.FIRST + step // self.STEPS_PER_BLOCK:
            self._add(len(self.pixels))
        available = (self.FIRST + step // self.STEPS_PER_BLOCK) * self.BLOCK
        rows = torch.randint(available, (count,), generator=step_stream(self.seed, "portraits", step))
        pixels = np.stack([self.pixels[row // self.BLOCK][row % self.BLOCK] for row in rows.tolist()])
        return self.latents[rows], self.truncation[rows], to_float(torch.from_numpy(pixels))

    def _add(self, block: int) -> None:
        samples = range(block * self.BLOCK, (block + 1) * self.BLOCK)
        latents = normal((NUM_FACTORS,), self.seed, "portraits", samples=samples)
        truncation = torch.ones(self.BLOCK)
        if block % self.TRUNCATED == self.TRUNCATED - 1:
            truncation = 1 - 0.5 * torch.rand(self.BLOCK, generator=stream(self.seed, "truncation", block))

        def draw() -> Tensor:
            parts = zip(torch.split(latents, 64), torch.split(truncation, 64), strict=True)
            return torch.cat([portrait(*part) for part in parts])

        self.pixels.append(cached_images(self.folder / f"seed{self.seed}-block{block:05d}.npy", draw))
        self.latents = torch.cat([self.latents, latents])
        self.truncation = torch.cat([self.truncation, truncation])
