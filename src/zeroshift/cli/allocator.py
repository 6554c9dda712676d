"""Memory allocator settings of the C library, for the commands."""

import ctypes
import functools
import os
import platform
from collections.abc import Mapping

__all__ = ["CHOSEN_BY_USER", "keep_freed_memory", "share_arenas"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # glibc's malloc.h
CHOSEN_BY_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


@functools.cache
def keep_freed_memory() -> bool:
    """Makes glibc keep the memory of freed large tensors for reuse, in the whole process; returns whether it does.

    By default, glibc returns this memory to the system, and every operation maps its result again. On a CPU, page
    faults take a third of the time of a 256-pixel StyleGAN2. The cost is up to 40 % more peak memory (docs/speed.md).

    This does nothing with another C library, or if an environment variable selects an allocator or its settings. The
    library never calls it; in your own program, call it before the first large tensor is created.
    """
    return _set({_MMAP_THRESHOLD: 2**30, _TRIM_THRESHOLD: 2**31 - 1})


def share_arenas(number: int = 2) -> bool:
    """Makes all threads of the process share `number` of glibc's memory arenas; returns whether it does.

    By default each thread of a server gets an arena of its own, up to eight per core, and each keeps the memory of the
    largest work that it ever did. Call it before the threads start.
    """
    return _set({_ARENA_MAX: number})


def _set(options: Mapping[int, int]) -> bool:
    """Sets options of glibc's allocator, unless there is another one or the user has chosen."""
    if platform.libc_ver()[0] != "glibc" or any(os.environ.get(name) for name in CHOSEN_BY_USER):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(option, value) for option, value in options.items())
