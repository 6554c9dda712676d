"""Portraits: rendered people as training images of the generator."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zeroshift.core.rng import normal, stream
from zeroshift.io.atomic import atomic_write
from zeroshift.miniature.training.loop import step_stream
from zeroshift.miniature.world.anatomy import build_scene
from zeroshift.miniature.world.domains import SOURCE
from zeroshift.miniature.world.factors import FACTORS, NUM_FACTORS, values
from zeroshift.miniature.world.media import DEPICT

__all__ = ["Portraits", "portrait"]


@torch.no_grad()
def portrait(latents: Tensor, truncation: Tensor) -> Tensor:
    """The renderer's photo of a person, scalar factors pulled to their middle: [N, 32], [N] -> [N, 3, 64, 64]."""
    seen = values(latents)
    for factor in FACTORS:
        if not factor.is_class:
            middle = (factor.low + factor.high) / 2
            seen[factor.name] = middle + truncation * (seen[factor.name] - middle)
    return DEPICT[SOURCE.medium](build_scene(seen, SOURCE.being), torch.zeros) * 2 - 1


class Portraits:
    """Training portraits of a seed in blocks of 256, kept in `folder` and rendered where they are missing."""

    BLOCK, FIRST, STEPS_PER_BLOCK, TRUNCATED = 256, 16, 20, 8

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed = folder, seed
        self.latents = torch.empty(0, NUM_FACTORS)
        self.truncation = torch.empty(0)
        self.pixels: list[np.ndarray] = []

    def batch(self, step: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random portraits of those available at a step, whose number grows: latents, truncation [N], images."""
        while len(self.pixels) < self.FIRST + step // self.STEPS_PER_BLOCK:
            self._add(len(self.pixels))
        available = (self.FIRST + step // self.STEPS_PER_BLOCK) * self.BLOCK
        rows = torch.randint(available, (count,), generator=step_stream(self.seed, "portraits", step))
        pixels = np.stack([self.pixels[row // self.BLOCK][row % self.BLOCK] for row in rows.tolist()])
        return self.latents[rows], self.truncation[rows], torch.from_numpy(pixels).float() / 127.5 - 1

    def _add(self, block: int) -> None:
        samples = range(block * self.BLOCK, (block + 1) * self.BLOCK)
        latents = normal((NUM_FACTORS,), self.seed, "portraits", samples=samples)
        truncation = torch.ones(self.BLOCK)
        if block % self.TRUNCATED == self.TRUNCATED - 1:
            truncation = 1 - 0.5 * torch.rand(self.BLOCK, generator=stream(self.seed, "truncation", block))
        path = self.folder / f"seed{self.seed}-block{block:05d}.npy"
        if not path.exists():
            parts = zip(latents.split(64), truncation.split(64), strict=True)
            images = torch.cat([portrait(*part) for part in parts])
            pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.save(file, pixels)
        self.pixels.append(np.load(path, mmap_mode="r"))
        self.latents = torch.cat([self.latents, latents])
        self.truncation = torch.cat([self.truncation, truncation])
