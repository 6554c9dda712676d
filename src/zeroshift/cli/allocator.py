"""Memory allocator settings of the C library, for the commands."""

import ctypes
import functools
import os
import platform

__all__ = ["CHOSEN_BY_USER", "keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
CHOSEN_BY_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


@functools.cache
def keep_freed_memory() -> bool:
    """Makes glibc keep the memory of freed large tensors for reuse, in the whole process; returns whether it does.

    By default, glibc returns this memory to the system, and every operation maps its result again. On a CPU, page
    faults take a third of the time of a 256-pixel StyleGAN2. The cost is up to 40 % more peak memory (docs/speed.md).

    This does nothing with another C library, or if an environment variable selects an allocator or its settings. The
    library never calls it; in your own program, call it before the first large tensor is created.
    """
    if platform.libc_ver()[0] != "glibc" or any(os.environ.get(name) for name in CHOSEN_BY_USER):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, 2**30) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
