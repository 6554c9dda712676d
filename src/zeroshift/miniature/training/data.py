"""Training images of the encoders: rendered once into a folder of blocks, then drawn from it at random.

A block shows PEOPLE people in DOMAINS_PER_BLOCK domains each, one of which is the source domain, so that a batch can
hold the same person in several domains and several people in the same domain: the hard negatives of contrastive
training. Everything but the pixels follows from (seed, block number), so only pixels are stored. Pairs that are kept
out (`domains.KEPT_OUT`) never occur.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from zeroshift.core.rng import stream
from zeroshift.io.atomic import atomic_write
from zeroshift.miniature.world.domains import SEEN, SOURCE, Domain
from zeroshift.miniature.world.factors import positions
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = ["DOMAINS_PER_BLOCK", "PEOPLE", "Batch", "Blocks"]

PEOPLE = 64
DOMAINS_PER_BLOCK = 6
FIRST, NEW_BLOCKS = 60, 0.25  # to begin with, and a step


@dataclass(frozen=True)
class Batch:
    """images [N, 3, 64, 64] in [-1, 1], latents and factor positions [N, 32], domains and their indices in SEEN.

    `rows` [N] numbers the images among all of the blocks'.
    """

    images: torch.Tensor
    latents: torch.Tensor
    positions: torch.Tensor
    domains: tuple[Domain, ...]
    indices: torch.Tensor
    rows: torch.Tensor


class Blocks:
    """`count` blocks of a seed, kept in `folder` and rendered where they are missing."""

    def __init__(self, folder: str | os.PathLike[str], count: int, seed: int = 0):
        self.folder, self.count, self.seed = Path(folder), count, seed
        others = [domain for domain in SEEN if domain != SOURCE]
        # All other domains take turns in an order that is drawn anew each round, so that they come equally often.
        wanted = count * (DOMAINS_PER_BLOCK - 1)
        order: list[Domain] = []
        while len(order) < wanted:
            shuffled = torch.randperm(len(others), generator=stream(seed, "block domains", len(order))).tolist()
            order += [others[index] for index in shuffled]
        width = DOMAINS_PER_BLOCK - 1
        self.domains = [(SOURCE, *order[block * width : (block + 1) * width]) for block in range(count)]
        self.latents = sample_latents(seed, range(count * PEOPLE)).view(count, PEOPLE, -1)
        self.positions = positions(self.latents.flatten(0, 1)).view(count, PEOPLE, -1)

    def prepare(self) -> None:
        """Renders all missing blocks; may be stopped and called again, or run in several processes."""
        for block in track(range(self.count), description="rendering"):
            self._images(block)

    def _images(self, block: int) -> np.ndarray:
        """uint8 [DOMAINS_PER_BLOCK, PEOPLE, 3, 64, 64], mapped from the file."""
        path = self.folder / f"seed{self.seed}-block{block:05d}.npy"
        if not path.exists():
            samples = range(block * PEOPLE, (block + 1) * PEOPLE)
            pictures = [render(self.latents[block], domain, self.seed, samples) for domain in self.domains[block]]
            pixels = ((torch.stack(pictures) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.save(file, pixels)
        return np.load(path, mmap_mode="r")

    def available(self, step: int, new_blocks: float = NEW_BLOCKS) -> int:
        """How many blocks a training draws from at a step: it begins with a few, so that it need not wait for all.

        Args:
            new_blocks: how many more each step; infinite for all from the first.
        """
        return self.count if math.isinf(new_blocks) else min(self.count, FIRST + int(step * new_blocks))

    def batch(self, generator: torch.Generator, available: int, groups: int, people: int) -> Batch:
        """`groups` random blocks of the first `available`, `people` random people of each, in all domains of the block.

        Rows are ordered group, domain, person: groups * DOMAINS_PER_BLOCK * people in all.
        """
        chosen = []
        for block in torch.randint(available, (groups,), generator=generator).tolist():
            chosen.append((block, torch.randperm(PEOPLE, generator=generator)[:people]))
        return self._batch(chosen)

    def block(self, block: int) -> Batch:
        """All images of a block, ordered domain, person."""
        return self._batch([(block, torch.arange(PEOPLE))])

    def _batch(self, chosen: Sequence[tuple[int, torch.Tensor]]) -> Batch:
        """The images of (block, people) in all domains of the block."""
        images, latents, places, domains, numbers = [], [], [], [], []
        for block, rows in chosen:
            pixels = torch.from_numpy(np.ascontiguousarray(self._images(block)[:, rows.numpy()]))
            images.append(pixels.flatten(0, 1))
            latents.append(self.latents[block, rows].repeat(DOMAINS_PER_BLOCK, 1))
            places.append(self.positions[block, rows].repeat(DOMAINS_PER_BLOCK, 1))
            domains += [domain for domain in self.domains[block] for _ in rows]
            numbers.append(
                ((block * DOMAINS_PER_BLOCK + torch.arange(DOMAINS_PER_BLOCK))[:, None] * PEOPLE + rows).flatten()
            )
        return Batch(
            images=torch.cat(images).float() / 127.5 - 1,
            latents=torch.cat(latents),
            positions=torch.cat(places),
            domains=tuple(domains),
            indices=torch.tensor([_SEEN_INDEX[domain] for domain in domains]),
            rows=torch.cat(numbers),
        )


_SEEN_INDEX = {domain: index for index, domain in enumerate(SEEN)}
