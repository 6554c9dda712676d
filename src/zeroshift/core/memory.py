"""Memory of the process."""

import ctypes
import functools
import platform
from collections.abc import Callable

__all__ = ["release_freed_memory"]


def release_freed_memory() -> bool:
    """Returns freed memory to the system, which glibc keeps between blocks in use; returns whether it did.

    For programs that run for long: a server whose threads load and free models grows without it. Takes milliseconds.
    """
    trim = _malloc_trim()
    return trim is not None and bool(trim(0))


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    return ctypes.CDLL(None).malloc_trim if platform.libc_ver()[0] == "glibc" else None
