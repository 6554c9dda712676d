"""A pytest plugin that has MKL, inside PyTorch, take the kernels that it takes on Intel processors.

On AMD processors MKL takes others, which round otherwise. The recorded adaptation runs were made with Intel's, and
Adam's first steps make much of rounding: only with the same kernels can one see whether the arithmetic is the same. MKL
keeps what it found out about the processor in a variable; it is set here before anything is computed. For tests alone:
it is no part of MKL's interface.
"""

import ctypes
import mmap
import struct
from pathlib import Path

import numpy as np
import torch

FLAG = b"mkl_serv_intel_cpu_true.cached"  # -1: not known yet, 0: not Intel's, 1: Intel's
SYMTAB = 2
SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)


def library() -> Path:
    """PyTorch's library for the processor, which contains MKL."""
    return Path(torch.__file__).resolve().parent / "lib" / "libtorch_cpu.so"  # as /proc tells it


def address(path: Path, symbol: bytes) -> int | None:
    """Where a symbol of a 64-bit ELF file lies, from the file's base in memory; None if it is not named there."""
    if not path.is_file():
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:6] != b"\x7fELF\x02\x01":
            return None
        (start,) = struct.unpack_from("<Q", data, 0x28)
        size, count = struct.unpack_from("<HH", data, 0x3A)
        sections = [struct.unpack_from("<IIQQQQIIQQ", data, start + index * size) for index in range(count)]
        for _, kind, _, _, offset, length, link, *_ in sections:
            if kind != SYMTAB:
                continue
            _, _, _, _, names, names_length, *_ = sections[link]
            found = data.find(b"\0" + symbol + b"\0", names, names + names_length)
            if found < 0:
                continue
            symbols = np.frombuffer(data[offset : offset + length], SYMBOL)
            (rows,) = np.nonzero(symbols["name"] == found + 1 - names)
            if len(rows):
                return int(symbols["value"][rows[0]])
    return None


def base(path: Path) -> int:
    """Where a library lies in this process."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return min(int(line.split("-")[0], 16) for line in lines if line.endswith(str(path)))


def pytest_configure() -> None:
    offset = address(library(), FLAG)
    assert offset is not None, "this PyTorch does not tell where MKL keeps its flag"
    flag = ctypes.c_int.from_address(base(library()) + offset)
    assert flag.value in (-1, 0, 1)
    flag.value = 1
