"""Freed memory goes back to the system."""

import platform

import psutil
import pytest

from zeroshift.core.memory import release_freed_memory

SIZE, NUMBER = 64 * 1024, 2000  # below the size that glibc maps alone


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_blocks_between_used_ones_are_released() -> None:
    blocks = [bytes([1]) * SIZE for _ in range(NUMBER)]
    kept = blocks[::20]
    del blocks
    before = psutil.Process().memory_info().rss
    release_freed_memory()
    assert psutil.Process().memory_info().rss < before - NUMBER * SIZE / 2
    assert len(kept) == NUMBER // 20
