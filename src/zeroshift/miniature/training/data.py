"""Training images of the encoders: rendered once into a folder of blocks, from which batches are drawn at random.

A block shows PEOPLE people in DOMAINS_PER_BLOCK domains each, one of which is the source domain. A batch thus contains
the same person in several domains and several people in the same domain, the hard negatives of contrastive training.
Files contain only pixels; everything else is a function of (seed, block number). Held-out pairs never occur.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from zeroshift.core.rng import stream
from zeroshift.miniature.training.cache import cached_images, to_float
from zeroshift.miniature.world.domains import SOURCE, TRAINED, Domain
from zeroshift.miniature.world.factors import positions
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = ["DOMAINS_PER_BLOCK", "PEOPLE", "Batch", "Blocks"]

PEOPLE = 64
DOMAINS_PER_BLOCK = 6
FIRST, NEW_BLOCKS = 60, 0.25  # blocks available at the first step, and further ones per step


@dataclass(frozen=True)
class Batch:
    """A batch of training images.

    Attributes:
        images: [N, 3, 64, 64] in [-1, 1].
        latents, positions: [N, 32]; positions are those of the factors, see `world.factors`.
        domains: N domains.
        indices: [N], the domains' indices in TRAINED.
        rows: [N], the images' numbers among the images of all blocks.
    """

    images: torch.Tensor
    latents: torch.Tensor
    positions: torch.Tensor
    domains: tuple[Domain, ...]
    indices: torch.Tensor
    rows: torch.Tensor


class Blocks:
    """The first `count` blocks of a seed, kept in `folder`; missing blocks are rendered on demand."""

    def __init__(self, folder: str | os.PathLike[str], count: int, seed: int = 0):
        self.folder, self.count, self.seed = Path(folder), count, seed
        others = [domain for domain in TRAINED if domain != SOURCE]
        # The other domains alternate in an order that is shuffled every round, so all are equally frequent.
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
        """Renders all missing blocks. Can be interrupted, called again and run in several processes."""
        for block in track(range(self.count), description="rendering"):
            self._images(block)

    def _images(self, block: int) -> NDArray[np.uint8]:
        """Images [DOMAINS_PER_BLOCK, PEOPLE, 3, 64, 64] of a block."""

        def draw() -> torch.Tensor:
            samples = range(block * PEOPLE, (block + 1) * PEOPLE)
            return torch.stack(
                [render(self.latents[block], domain, self.seed, samples) for domain in self.domains[block]]
            )

        return cached_images(self.folder / f"seed{self.seed}-block{block:05d}.npy", draw)

    def available(self, step: int, new_blocks: float = NEW_BLOCKS) -> int:
        """Number of blocks that batches are drawn from at a step. It grows, so that a training can start immediately.

        Args:
            new_blocks: further blocks per step; infinity makes all available from the first step.
        """
        return self.count if math.isinf(new_blocks) else min(self.count, FIRST + int(step * new_blocks))

    def batch(self, generator: torch.Generator, available: int, groups: int, people: int) -> Batch:
        """A random batch: `people` people of each of `groups` blocks, in all domains of their block.

        Blocks are drawn from the first `available`. The groups * DOMAINS_PER_BLOCK * people rows are ordered by group,
        domain, person.
        """
        chosen = []
        for block in torch.randint(available, (groups,), generator=generator).tolist():
            chosen.append((block, torch.randperm(PEOPLE, generator=generator)[:people]))
        return self._batch(chosen)

    def block(self, block: int) -> Batch:
        """All images of a block, ordered by domain, person."""
        return self._batch([(block, torch.arange(PEOPLE))])

    def _batch(self, chosen: Sequence[tuple[int, torch.Tensor]]) -> Batch:
        """The images of some people of each block, in all domains of the block."""
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
            images=to_float(torch.cat(images)),
            latents=torch.cat(latents),
            positions=torch.cat(places),
            domains=tuple(domains),
            indices=torch.tensor([_TRAINED_INDEX[domain] for domain in domains]),
            rows=torch.cat(numbers),
        )


_TRAINED_INDEX = {domain: index for index, domain in enumerate(TRAINED)}
