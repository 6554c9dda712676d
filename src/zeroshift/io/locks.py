"""Keeps two processes from writing into one folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import disk_errors
from zeroshift.io.leftovers import TEMPORARY_PREFIX, remove_leftovers

__all__ = ["locked_folder"]

_LOCK = f"{TEMPORARY_PREFIX}lock"


@contextlib.contextmanager
def locked_folder(path: Path, work: str, option: str = "--out") -> Iterator[None]:
    """Keeps other processes from the same work in an existing folder, and removes temporary files of a killed process.

    Args:
        work: what the process does there, such as "training".
        option: the option that names another folder, for the message.

    Raises:
        ZeroshiftError: if another process is at it.
    """
    with disk_errors(path):
        lock = FileLock(path / _LOCK, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise ZeroshiftError(
                f"Another process is {work} in {path}. Wait until it ends, or give another folder ({option})."
            ) from error
        try:
            remove_leftovers(path, recursive=True)
            yield
        finally:
            (path / _LOCK).unlink(missing_ok=True)  # while it is held: no process waits for it
            lock.release()
