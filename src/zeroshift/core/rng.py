"""Randomness as a function of (seed, purpose, step, sample): resuming, splitting or spreading changes nothing."""

import zlib
from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["normal", "stream"]


def stream(*keys: int | str) -> torch.Generator:
    """A CPU random generator that depends on nothing but `keys` (integers, or strings naming the purpose)."""
    words = [zlib.crc32(key.encode()) if isinstance(key, str) else int(key) & 0xFFFFFFFFFFFFFFFF for key in keys]
    state = np.random.SeedSequence(words).generate_state(2, np.uint32)
    return torch.Generator().manual_seed((int(state[0]) << 31) ^ int(state[1]))


def normal(shape: Sequence[int], *keys: int | str, samples: Sequence[int]) -> torch.Tensor:
    """Standard normal float32 [len(samples), *shape]; row i depends on `keys` and samples[i] alone."""
    if not len(samples):
        return torch.empty(0, *shape)
    return torch.stack([torch.randn(tuple(shape), generator=stream(*keys, index)) for index in samples])
