"""Commands keep freed memory if the C library is glibc and the user has chosen no allocator settings."""

import os
import platform
import subprocess
import sys

import pytest

from zeroshift.cli.allocator import CHOSEN_BY_USER

# Page faults of several large tensors, with the default allocator settings or with keep_freed_memory.
FAULTS = """
import resource, sys, torch
from zeroshift.cli.allocator import keep_freed_memory
kept = sys.argv[1] == "keep" and keep_freed_memory()
torch.ones(2**26)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(32):
    torch.ones(2**24)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(*arguments: str, **environment: str) -> tuple[str, int]:
    output = subprocess.run(
        [sys.executable, "-c", FAULTS, *arguments], env={**os.environ, **environment}, capture_output=True, text=True,
        check=True,
    ).stdout.split()  # fmt: skip
    return output[0], int(output[1])


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_large_tensors_reuse_memory() -> None:
    for name in CHOSEN_BY_USER:
        if os.environ.get(name):
            pytest.skip(f"{name} is set")
    _, without = run("as it is")
    kept, faults = run("keep")
    assert kept == "True"
    assert faults < without / 3, "the first allocations still cause page faults"


@pytest.mark.slow
def test_user_settings_take_precedence() -> None:
    assert run("keep", MALLOC_TRIM_THRESHOLD_="1000000")[0] == "False"


ARENAS = """
import ctypes, sys, threading
from zeroshift.cli.allocator import share_arenas
shared = sys.argv[1] == "share" and share_arenas(2)
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
ready = threading.Barrier(8)

def work():
    library.malloc(1000)
    ready.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(shared)
library.malloc_stats()
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_threads_of_the_studio_share_arenas() -> None:
    def arenas(argument: str) -> tuple[str, int]:
        done = subprocess.run([sys.executable, "-c", ARENAS, argument], capture_output=True, text=True, check=True)
        return done.stdout.strip(), done.stderr.count("Arena ")

    shared, number = arenas("share")
    assert shared == "True"
    assert number <= 2 < arenas("as it is")[1]
