"""Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) in tensor operations.

A number depends only on the key and its counter, so tensors of random numbers are made on the device that needs them,
without a copy from the host, and every device makes the same ones (normal numbers up to the rounding of log and cos).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["philox", "philox_normal"]

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)  # key increments
_ROUNDS = 10
_MASK = 0xFFFFFFFF
_BITS = 24  # of a uniform number, which float32 holds exactly


def philox(counter: Sequence[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Four random words of 32 bits for each counter.

    Args:
        counter: four words of 32 bits each, as int64 tensors of shapes that broadcast.
        key: two words of 32 bits.

    Returns:
        Four int64 tensors in [0, 2^32).
    """
    words = list(torch.broadcast_tensors(*counter))
    first, second = key
    for _ in range(_ROUNDS):
        # int64 products wrap modulo 2^64, which keeps both halves of the exact product
        low, high = zip(*((one & _MASK, (one >> 32) & _MASK) for one in _products(words)), strict=True)
        words = [high[1] ^ words[1] ^ first, low[1], high[0] ^ words[3] ^ second, low[0]]
        first, second = (first + _WEYL[0]) & _MASK, (second + _WEYL[1]) & _MASK
    return words


def philox_normal(shape: Sequence[int], key: tuple[int, int], samples: Sequence[int], device: torch.device) -> Tensor:
    """Standard normal [len(samples), *shape] in the default dtype; row i depends on the key and samples[i] only.

    The counter is (place / 4, 0, sample, sample / 2^32). Box and Muller (1958) turn two uniform numbers into two normal
    ones.
    """
    count = math.prod(shape)
    blocks = torch.arange(-(-count // 4), device=device)
    numbers = torch.tensor(samples, dtype=torch.int64).to(device, non_blocking=True)[:, None]
    counter = (blocks, torch.zeros_like(blocks), numbers & _MASK, (numbers >> 32) & _MASK)
    uniform = [(word >> (32 - _BITS)).to(torch.get_default_dtype()) for word in philox(counter, key)]
    normals: list[Tensor] = []
    for radial, angular in (uniform[:2], uniform[2:]):
        radius = ((radial + 0.5) * 2.0**-_BITS).log_().mul_(-2).sqrt_()  # the half avoids log 0
        angle = angular * (2 * math.pi * 2.0**-_BITS)
        normals += [radius * angle.cos(), radius * angle.sin()]
    return torch.stack(normals, dim=-1).flatten(1)[:, :count].reshape(len(samples), *shape)


def _products(words: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    return words[0] * _MULTIPLIERS[0], words[2] * _MULTIPLIERS[1]
