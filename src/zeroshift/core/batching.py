"""Work in batches: as large as memory allows, and with progress to be seen."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

__all__ = ["Fitting", "Track", "untracked"]

T = TypeVar("T")
Track = Callable[[Iterable[T], int, str], Iterable[T]]  # (items, how many, what): the items, with a progress bar


def untracked(items: Iterable[T], total: int, what: str) -> Iterable[T]:
    """The items, with no progress bar."""
    return items


class Fitting:
    """A function of rows, called with as many at a time as memory allows: halved whenever it does not."""

    def __init__(self, function: Callable[[Tensor], Tensor], size: int):
        self._function, self._size = function, size

    def __call__(self, rows: Tensor) -> Tensor:
        """What the function gives for rows [N, ...], N at least 1, in one tensor."""
        return torch.cat(list(self.batches(rows)))

    def batches(self, rows: Tensor) -> Iterator[Tensor]:
        """The same one batch after the other, where all together would be too large."""
        first = 0
        while first < len(rows):
            part = rows[first : first + self._size]
            try:
                with torch.inference_mode():
                    done = self._function(part)
            except RuntimeError as error:
                if len(part) == 1 or not should_reduce_batch_size(error):
                    raise
            else:
                yield done
                first += len(part)
                continue
            self._size = len(part) // 2  # out here: the error kept what was in memory
            clear_device_cache()
