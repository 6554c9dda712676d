"""Atomic file writes, append-only JSON lines, and disk errors as sentences."""

import contextlib
import errno
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroshift.errors import ZeroshiftError

if TYPE_CHECKING:
    from io import FileIO


__all__ = ["append_record", "atomic_write", "disk_errors", "open_to_all", "read_records"]

os.umask(_UMASK := os.umask(0))  # to read it is to set it
_TEMPORARY = ".zeroshift-"

_FULL = (errno.ENOSPC, errno.EDQUOT)

_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)

_MISPLACED = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR)

_IN_WORDS = re.compile(r"os error (\d+)")  # so safetensors reports what the system told it


def _os_error(error: BaseException | None) -> OSError | None:
    """The OSError behind an exception: libraries often wrap it in one of their own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


@contextlib.contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turns a full disk, a missing right or a wrong kind of path met while writing `path` into a ZeroshiftError."""
    try:
        yield
    except ZeroshiftError:
        raise
    except Exception as error:
        cause, words = _os_error(error), _IN_WORDS.search(str(error))
        code = cause.errno if cause else int(words[1]) if words else None
        if code in _FULL:
            raise ZeroshiftError(
                f"The disk is full: {path} could not be written. Free some space, then try again."
            ) from error
        if code in _DENIED:
            raise ZeroshiftError(
                f"No right to write {path}. Choose another folder, or change its permissions."
            ) from error
        if code in _MISPLACED:
            raise ZeroshiftError(
                f"Cannot write {path}: a file stands where a folder is needed, or the reverse."
            ) from error
        raise


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to; at the end it is synced and takes the place of `path`.

    If the body fails, the temporary file is removed and whatever stood at `path` is left as it was. The temporary name
    keeps the suffix of `path`. Missing parent folders are made.

    Raises:
        ZeroshiftError: if the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(4)}-{path.name}")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()  # a right that is missing is told here, not in the words of whoever writes
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            open_to_all(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def open_to_all(file: Path) -> None:
    """Gives a file the rights of any new one: some libraries make files that their owner alone can read."""
    os.chmod(file, 0o666 & ~_UMASK)


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Appends a line of JSON to a file, whole or not at all; half a line that a killed process left is cut off first.

    Raises:
        ZeroshiftError: if the disk is full or the file cannot be written.
    """
    line = (json.dumps(record) + "\n").encode()
    with disk_errors(path), open(path, "ab+", buffering=0) as file:
        end = _cut_torn_line(file)
        if file.write(line) != len(line):
            file.truncate(end)  # half a line would spoil the file
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _cut_torn_line(file: "FileIO") -> int:
    """Leaves whole lines only in a file that is open to be read and appended to; where it then ends."""
    end = file.seek(0, os.SEEK_END)
    if end:
        file.seek(end - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            end = file.readall().rfind(b"\n") + 1
            file.truncate(end)
    return end


def read_records(path: Path) -> list[dict[str, Any]]:
    """All lines of such a file, if it is there; a last one that a killed process left unfinished is passed over."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
