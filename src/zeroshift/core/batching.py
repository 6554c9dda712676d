"""Batches as large as memory allows, and the type of progress callbacks."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

__all__ = ["Fitting", "Track", "untracked"]

T = TypeVar("T")
Track = Callable[
    [Iterable[T], int, str], Iterable[T]
]  # (items, number of items, description) -> the same items, with progress shown


def untracked(items: Iterable[T], total: int, what: str) -> Iterable[T]:
    """The items, without a progress bar."""
    return items


class Fitting:
    """Applies a function of rows in batches, and halves the batch size whenever memory runs out.

    Args:
        function: maps rows [n, ...] to results [n, ...].
        size: initial batch size.
        gradients: whether `function` computes gradients; otherwise it runs in inference mode.

    Attributes:
        size: the present batch size.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], size: int, *, gradients: bool = False):
        self._function, self.size = function, size
        self._mode = torch.enable_grad if gradients else torch.inference_mode

    def __call__(self, rows: Tensor) -> Tensor:
        """The results for rows [N, ...], N at least 1, as one tensor."""
        return torch.cat(list(self.batches(rows)))

    def batches(self, rows: Tensor) -> Iterator[Tensor]:
        """Yields the results batch by batch, for results that are too large to hold in memory at once."""
        first = 0
        while first < len(rows):
            part = rows[first : first + self.size]
            try:
                with self._mode():
                    result = self._function(part)
            except RuntimeError as error:
                if len(part) == 1 or not should_reduce_batch_size(error):
                    raise
            else:
                yield result
                first += len(part)
                continue
            self.size = len(part) // 2  # after the except block: the traceback kept tensors alive
            clear_device_cache()
