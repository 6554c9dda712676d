"""Randomness as a function of (seed, purpose, step, sample).

Draws therefore do not change when a run is resumed, a batch is split, or the number of processes changes.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["normal", "stream"]


def stream(*keys: int | str) -> torch.Generator:
    """A random generator on the CPU, seeded by `keys` only: integers, and strings that name the purpose."""
    words = [zlib.crc32(key.encode()) if isinstance(key, str) else int(key) & 0xFFFFFFFFFFFFFFFF for key in keys]
    state = np.random.SeedSequence(words).generate_state(2, np.uint32)
    return torch.Generator().manual_seed((int(state[0]) << 31) ^ int(state[1]))


def normal(shape: Sequence[int], *keys: int | str, samples: Sequence[int]) -> torch.Tensor:
    """Standard normal [len(samples), *shape] in the default dtype; row i depends on `keys` and samples[i] only."""
    if not len(samples):
        return torch.empty(0, *shape)
    return torch.stack([torch.randn(tuple(shape), generator=stream(*keys, index)) for index in samples])
