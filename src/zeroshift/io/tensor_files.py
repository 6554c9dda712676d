"""Opens safetensors files, without importing torch."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from zeroshift.errors import DamagedFileError, ZeroshiftError
from zeroshift.io.atomic import disk_errors
from zeroshift.io.foreign import first_line

__all__ = ["open_tensors", "read_metadata"]


@contextlib.contextmanager
def open_tensors(path: str | Path, framework: str = "pt") -> Iterator[Any]:
    """A safetensors file, open for reading.

    Args:
        framework: of its tensors, "pt" or "numpy".

    Raises:
        ZeroshiftError: if there is no such file, or it cannot be read.
        DamagedFileError: if it is incomplete.
    """
    try:
        with disk_errors():
            open(path, "rb").close()  # the library calls a file missing that may not be read
        with safe_open(path, framework=framework) as file:
            yield file
    except FileNotFoundError as error:
        raise ZeroshiftError(f"There is no file {path}. Check the path.") from error
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise DamagedFileError(f"{path} is damaged: it is not a complete safetensors file.") from error
    except OSError as error:
        raise ZeroshiftError(f"{path} cannot be read: {error.strerror or first_line(error)}.") from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a safetensors file, not verified; errors as for `open_tensors`."""
    with open_tensors(path, "numpy") as file:
        return file.metadata() or {}
