"""Features that arrive in batches: small ones are kept in memory, large ones in a temporary file."""

import mmap
import tempfile
from collections.abc import Iterator
from typing import IO

import torch
from torch import Tensor

from zeroshift.io.atomic import disk_errors

__all__ = ["ROWS", "FeatureRows", "all_finite", "in_parts"]

ROWS = 16
"""Rows of large features that measures read at a time."""

_SMALL = 16 * 1024  # bytes of a row in memory: vectors of 4,096 numbers


class FeatureRows:
    """Collects features batch by batch. Those of more than 16 KiB an image, such as maps of edges, go to a file.

    The file is in the folder of temporary files (TMPDIR) and has no name, so it never stays behind. Its pages are
    mapped into memory on use, and the system drops them when memory is short.
    """

    def __init__(self) -> None:
        self._parts: list[Tensor] = []
        self._file: IO[bytes] | None = None
        self._shape: tuple[int, ...] = ()
        self._dtype = torch.float32

    def add(self, rows: Tensor) -> None:
        """Adds features [n, ...] on the CPU.

        Raises:
            ZeroshiftError: if the disk is full.
        """
        rows = rows.contiguous()
        if self._file is None and rows[0].nbytes <= _SMALL:
            self._parts.append(rows)
            return
        with disk_errors(tempfile.gettempdir()):
            if self._file is None:
                self._file, self._shape, self._dtype = tempfile.TemporaryFile(), rows.shape[1:], rows.dtype  # noqa: SIM115
            self._file.write(rows.view(-1).view(torch.uint8).numpy().data)

    def tensor(self) -> Tensor:
        """All features [N, ...]; nothing can be added afterwards."""
        if self._file is None:
            return torch.cat(self._parts)
        with disk_errors(tempfile.gettempdir()), self._file as file:
            file.flush()
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # stays valid without the file
        return torch.frombuffer(pages, dtype=self._dtype).view(-1, *self._shape)


def in_parts(*features: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Features [N, ...] of equal length, some rows at a time, for measures that make temporary tensors."""
    for first in range(0, len(features[0]), ROWS):
        yield tuple(each[first : first + ROWS] for each in features)


def all_finite(features: Tensor) -> bool:
    """Whether all values are finite numbers."""
    return all(bool(part.isfinite().all()) for (part,) in in_parts(features))
