"""The C library's allocator, told to keep the memory that it gets back."""

import ctypes
import functools
import os
import platform

__all__ = ["CHOSEN_BY_USER", "keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
CHOSEN_BY_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


@functools.cache
def keep_freed_memory() -> bool:
    """Has glibc reuse the memory of large tensors instead of giving it back to the system; whether it does.

    Otherwise every operation maps its result anew, and on a CPU a third of a 256-pixel StyleGAN2's time were page
    faults. The price is up to two fifths more peak memory there (docs/speed.md). For the whole process, from now on.
    Nothing happens with another C library, or where the user has chosen an allocator or its settings by an environment
    variable.
    """
    if platform.libc_ver()[0] != "glibc" or any(os.environ.get(name) for name in CHOSEN_BY_USER):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, 2**30) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
