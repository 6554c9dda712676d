"""Atomic file writes, append-only JSON lines, and disk errors as readable messages."""

import contextlib
import errno
import functools
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroshift.errors import ZeroshiftError
from zeroshift.io.caches import cache_variable
from zeroshift.io.leftovers import TEMPORARY_PREFIX, remove_leftovers, remove_temporary, temporary_path

if TYPE_CHECKING:
    from io import FileIO


__all__ = [
    "TEMPORARY_PREFIX",
    "append_record",
    "atomic_write",
    "disk_errors",
    "made_folder",
    "set_default_mode",
]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM)
_WRONG_KIND = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
_CODE_IN_MESSAGE = re.compile(r"os error (\d+)")  # safetensors reports system errors as text only
_PARTLY_WRITTEN = re.compile(r"\d+ requested and \d+ written")  # NumPy does not report them at all


def _os_error(error: BaseException | None) -> OSError | None:
    """The OSError behind an exception: libraries often wrap it in one of their own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


@contextlib.contextmanager
def disk_errors(path: str | Path | None = None) -> Iterator[None]:
    """Turns disk errors of the body into a ZeroshiftError that names the file.

    Handles a full disk, a file-size limit, a missing permission, a name that is too long, and a file where a folder is
    needed (or vice versa).

    Args:
        path: the file or folder that the body writes. An error with another file, such as one that the body reads, is
            reported as that file's.
    """
    try:
        yield
    except ZeroshiftError:
        raise
    except Exception as error:
        sentence = _sentence(error, path)
        if sentence is None:
            raise
        raise ZeroshiftError(sentence) from error


def _sentence(error: Exception, path: str | Path | None) -> str | None:
    """What happened, and what to do; None if this is no disk error."""
    cause, message = _os_error(error), _CODE_IN_MESSAGE.search(str(error))
    code = cause.errno if cause else int(message[1]) if message else None
    place = cause.filename if cause and isinstance(cause.filename, str) else None
    writes = path is not None and (place is None or _concerns(place, path))
    file = (path if writes else place) or path or "a file"
    if code in _FULL:
        sentence = f"The disk is full: {file} could not be written. Free some space, then try again."
    elif code == errno.EFBIG:
        sentence = (
            f"{file} could not be written: it is larger than files may be here. Raise the limit (`ulimit -f`), or "
            "choose another disk."
        )
    elif code == errno.EROFS or (code in _DENIED and writes):
        sentence = f"No permission to write {file}. Choose another folder, or change its permissions."
    elif code in _DENIED:
        return f"No permission to {_refused(str(file))} {file}. Change its permissions, or name another file."
    elif code in _WRONG_KIND and writes:
        sentence = f"Cannot write {file}: a file exists where a folder is needed, or vice versa."
    elif code in _WRONG_KIND:
        return f"Cannot open {file}: a file exists where a folder is needed, or vice versa."
    elif code == errno.ENAMETOOLONG:
        return f"The name {str(file)[:100]}… is too long for this file system. Choose a shorter one."
    elif cause is not None and _PARTLY_WRITTEN.search(str(cause)):
        sentence = f"{file} could not be written completely: the disk is full, or files may not be that large here."
    else:
        return None
    variable = cache_variable(file)
    return sentence if variable is None else f"{sentence} {variable} moves this cache to another folder."


def _concerns(place: str, path: str | Path) -> bool:
    """Whether an error with `place` occurred while `path` was written: it, a folder above, temporary, or in it."""
    named, written = Path(os.path.abspath(place)), Path(os.path.abspath(path))
    temporary = named.name.startswith(TEMPORARY_PREFIX) and written.is_relative_to(named.parent)
    return temporary or written.is_relative_to(named) or (named.is_relative_to(written) and not _unreadable(place))


def _unreadable(place: str) -> bool:
    """Whether a file may not be read, or its folder not be entered."""
    if os.path.lexists(place):
        return not os.access(place, os.R_OK)
    folder = os.path.dirname(os.path.abspath(place))
    return os.path.isdir(folder) and not os.access(folder, os.X_OK)


def _refused(place: str) -> str:
    """What was refused with a file. Only the permissions of the file tell: the error does not."""
    if not os.path.lexists(place):
        return "reach"
    return "read" if _unreadable(place) else "write"


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Makes a folder with its parents. If the body fails, those that are new and still empty are removed."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for one in new:
            with contextlib.suppress(OSError):
                one.rmdir()
        raise


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path next to `path`; on success it is synced and replaces `path`.

    If the body fails, the temporary file is removed and `path` is left unchanged. A process that is killed leaves the
    temporary file; the next one that writes in this folder removes it. The temporary name keeps the suffix of `path`.
    Missing parent folders are created. The result has the default permissions of new files, even if a library created
    it with mode 0600.

    Raises:
        ZeroshiftError: if the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = temporary_path(path)
    with disk_errors(path), made_folder(path.parent):
        try:
            _remove_leftovers_once(Path(os.path.realpath(path.parent)))
            mode = _create(temporary)  # also reports a missing permission before the body starts
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.chmod(temporary, mode)
            os.replace(temporary, path)
        finally:
            remove_temporary(temporary)


_remove_leftovers_once = functools.lru_cache(maxsize=1024)(remove_leftovers)  # a folder may hold many files


def set_default_mode(file: Path) -> None:
    """Gives a file the default permissions of new files in its folder: some libraries create files with mode 0600.

    The mode is copied from an empty file created for this purpose. Reading the umask would require changing it for all
    threads of the process.
    """
    probe = temporary_path(file)
    try:
        os.chmod(file, _create(probe))
    finally:
        remove_temporary(probe)


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
        end, rest = _remove_incomplete_line(file), memoryview(line)
        try:
            while rest:  # a full disk takes a part, and refuses the rest
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(end)  # an incomplete line would corrupt the file
            raise


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
