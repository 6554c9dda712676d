"""Atomic file writes, append-only JSON lines, and disk errors as readable messages."""

import contextlib
import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroshift.errors import ZeroshiftError

if TYPE_CHECKING:
    from io import FileIO


__all__ = [
    "TEMPORARY_PREFIX",
    "append_record",
    "atomic_write",
    "disk_errors",
    "read_records",
    "set_default_mode",
]

TEMPORARY_PREFIX = ".zeroshift-"  # of every temporary file, so that leftovers of a killed process can be removed

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_WRONG_KIND = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
_CODE_IN_MESSAGE = re.compile(r"os error (\d+)")  # safetensors reports system errors as text only


def _os_error(error: BaseException | None) -> OSError | None:
    """The OSError behind an exception: libraries often wrap it in one of their own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


@contextlib.contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turns disk errors of the body into a ZeroshiftError that names `path`.

    Handles a full disk, a missing permission, and a file where a folder is needed (or vice versa).
    """
    try:
        yield
    except ZeroshiftError:
        raise
    except Exception as error:
        cause, message = _os_error(error), _CODE_IN_MESSAGE.search(str(error))
        code = cause.errno if cause else int(message[1]) if message else None
        if code in _FULL:
            raise ZeroshiftError(
                f"The disk is full: {path} could not be written. Free some space, then try again."
            ) from error
        if code in _DENIED:
            raise ZeroshiftError(
                f"No permission to write {path}. Choose another folder, or change its permissions."
            ) from error
        if code in _WRONG_KIND:
            raise ZeroshiftError(
                f"Cannot write {path}: a file exists where a folder is needed, or vice versa."
            ) from error
        raise


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path next to `path`; on success it is synced and replaces `path`.

    If the body fails, the temporary file is removed and `path` is left unchanged. The temporary name keeps the suffix
    of `path`. Missing parent folders are created. The result has the default permissions of new files, even if a
    library created it with mode 0600.

    Raises:
        ZeroshiftError: if the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = _temporary_path(path)
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            mode = _create(temporary)  # also reports a missing permission before the body starts
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.chmod(temporary, mode)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def set_default_mode(file: Path) -> None:
    """Gives a file the default permissions of new files in its folder: some libraries create files with mode 0600.

    The mode is copied from an empty file created for this purpose. Reading the umask would require changing it for all
    threads of the process.
    """
    probe = _temporary_path(file)
    try:
        os.chmod(file, _create(probe))
    finally:
        probe.unlink(missing_ok=True)


def _temporary_path(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{path.name}")


def _create(path: Path) -> int:
    """Creates an empty file and returns its mode: 0666 without the bits of the umask."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Appends one line of JSON to a file, completely or not at all; an incomplete last line is removed first.

    Raises:
        ZeroshiftError: if the disk is full or the file cannot be written.
    """
    line = (json.dumps(record) + "\n").encode()
    with disk_errors(path), open(path, "ab+", buffering=0) as file:
        end = _remove_incomplete_line(file)
        if file.write(line) != len(line):
            file.truncate(end)  # an incomplete line would corrupt the file
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _remove_incomplete_line(file: "FileIO") -> int:
    """Removes an incomplete last line from a file that is open for reading and appending; returns the new size."""
    end = file.seek(0, os.SEEK_END)
    if end:
        file.seek(end - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            end = file.readall().rfind(b"\n") + 1
            file.truncate(end)
    return end


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines, none if it does not exist; an incomplete last line is ignored."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
