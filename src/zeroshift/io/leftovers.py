"""Names of temporary files, and the removal of those that killed processes left behind."""

import contextlib
import functools
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from pathlib import Path

__all__ = [
    "TEMPORARY_PREFIX", "remove_leftovers", "remove_temporary", "runs_since", "temporary_path", "this_machine",
]  # fmt: skip

TEMPORARY_PREFIX = ".zeroshift-"
# PREFIX HOST-PROCESS-RANDOM SUFFIX; version 0.1 wrote PREFIX RANDOM-NAME.
_NAME = re.compile(re.escape(TEMPORARY_PREFIX) + r"(?:([0-9a-f]{8})-(\d{1,10})-)?[0-9a-f]{8}([.-].*)?")
_LONGEST_SUFFIX = 16
_DAY = 24 * 3600
_CLOCK_DIFFERENCE = 60  # seconds between this machine and a file server


def temporary_path(path: Path) -> Path:
    """A new name in the folder of `path`, with its suffix. It states the process, so that others know who uses it."""
    suffix = path.suffix if len(path.suffix) <= _LONGEST_SUFFIX else ""
    return path.with_name(f"{TEMPORARY_PREFIX}{this_machine()}-{os.getpid()}-{secrets.token_hex(4)}{suffix}")


def remove_temporary(path: Path) -> None:
    """Removes a temporary file or folder, if it exists. Ctrl-C or a signal during the removal does not leave it behind.

    Only the first signal raises KeyboardInterrupt (`core.interrupts`), so the second attempt is not interrupted.
    """
    try:
        _remove(path)
    except KeyboardInterrupt:
        _remove(path)
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path, *, recursive: bool = False) -> None:
    """Removes the temporary files and folders in a folder whose processes have ended.

    Those of another machine count as left behind after a day without a change. Errors are ignored: leftovers harm
    nothing.
    """
    pattern = f"{TEMPORARY_PREFIX}*"
    with contextlib.suppress(OSError):
        for path in list(folder.rglob(pattern) if recursive else folder.glob(pattern)):
            with contextlib.suppress(OSError):
                if _is_leftover(path):
                    _remove(path)


def _is_leftover(path: Path) -> bool:
    match = _NAME.fullmatch(path.name)
    if match is None:
        return False
    host, process, _ = match.groups()
    if host is None:
        return True
    changed = path.lstat().st_mtime
    return not runs_since(int(process), changed) if host == this_machine() else time.time() - changed > _DAY


def runs_since(process: int, changed: float) -> bool:
    """Whether a process of this machine runs that may have made a file at this time; process numbers are reused."""
    import psutil

    try:
        found = psutil.Process(process)
        started: float = found.create_time()
        return found.status() != psutil.STATUS_ZOMBIE and started <= changed + _CLOCK_DIFFERENCE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # it exists, but tells nothing
        return True


@functools.cache
def this_machine() -> str:
    """Eight digits for this machine. Containers may share its name, but not its process numbers."""
    space = Path("/proc/self/ns/pid")
    name = f"{socket.gethostname()} {os.readlink(space) if space.is_symlink() else ''}"
    return hashlib.sha256(name.encode()).hexdigest()[:8]
