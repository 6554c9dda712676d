"""Randomness as a function of (seed, purpose, step, sample).

Draws therefore do not change when a run is resumed, a batch is split, or the number of processes changes.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import torch

from zeroshift.core.philox import philox_normal

__all__ = ["normal", "normal_on", "stream"]


def stream(*keys: int | str) -> torch.Generator:
    """A random generator on the CPU, seeded by `keys` only: integers, and strings that name the purpose."""
    first, second = _seed_words(keys)
    return torch.Generator().manual_seed((first << 31) ^ second)


def normal_on(device: torch.device, shape: Sequence[int], *keys: int | str, samples: Sequence[int]) -> torch.Tensor:
    """`normal` for large tensors on `device`.

    An accelerator computes them itself (`core.philox`), so nothing large is drawn on the CPU and copied in a training
    step. All accelerators draw the same numbers; a CPU draws those of `normal`, which are others.
    """
    if device.type == "cpu":
        return normal(shape, *keys, samples=samples)
    return philox_normal(shape, _seed_words(keys), samples, device)


def normal(shape: Sequence[int], *keys: int | str, samples: Sequence[int]) -> torch.Tensor:
    """Standard normal [len(samples), *shape] in the default dtype; row i depends on `keys` and samples[i] only."""
    if not len(samples):
        return torch.empty(0, *shape)
    return torch.stack([torch.randn(tuple(shape), generator=stream(*keys, index)) for index in samples])


def _seed_words(keys: Sequence[int | str]) -> tuple[int, int]:
    """Two words of 32 bits that depend on all keys."""
    words = [zlib.crc32(key.encode()) if isinstance(key, str) else int(key) & 0xFFFFFFFFFFFFFFFF for key in keys]
    first, second = np.random.SeedSequence(words).generate_state(2, np.uint32)
    return int(first), int(second)
