"""The kernel distance (KID)."""

import torch
from torch import Tensor

from zeroshift.core.rng import stream

__all__ = ["kernel_distance"]


def kernel_distance(
    x: Tensor, y: Tensor, *, seed: int = 0, subsets: int = 100, size: int = 1000
) -> tuple[float, float]:
    """Unbiased squared MMD of features [N, D] and [M, D]: mean and standard deviation over random subsets.

    Binkowski et al., "Demystifying MMD GANs", 2018, section 4: the kernel is (a·b / D + 1)³. The value may be negative.

    Args:
        seed: seed of the random subsets.
        subsets: how many; 1 if a subset contains all rows of x and y.
        size: rows of x and of y in a subset, at most min(N, M).
    """
    size = min(size, len(x), len(y))
    x, y = x.double(), y.double()
    values = []
    for index in range(1 if size == len(x) == len(y) else subsets):
        random = stream(seed, "kernel distance", index)
        a = x[torch.randperm(len(x), generator=random)[:size]]
        b = y[torch.randperm(len(y), generator=random)[:size]]
        values.append(_squared_mmd(a, b))
    estimates = torch.stack(values)
    return float(estimates.mean()), float(estimates.std(correction=0))


def _squared_mmd(a: Tensor, b: Tensor) -> Tensor:
    n = len(a)

    def kernel(one: Tensor, other: Tensor) -> Tensor:
        return (one @ other.T / one.shape[1] + 1) ** 3

    def off_diagonal(matrix: Tensor) -> Tensor:
        return (matrix.sum() - matrix.diagonal().sum()) / (n * (n - 1))

    return off_diagonal(kernel(a, a)) + off_diagonal(kernel(b, b)) - 2 * kernel(a, b).mean()
