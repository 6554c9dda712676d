"""Resumable downloads into a cache folder."""

import contextlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from filelock import FileLock

from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import disk_errors

__all__ = ["Progress", "ProgressFactory", "cache_folder", "download", "set_progress"]

Progress = Callable[[int, int | None], None]
"""Called with the bytes that have arrived and the total, None if unknown."""
ProgressFactory = Callable[[str], contextlib.AbstractContextManager[Progress]]
"""Makes a Progress for a file name; the context lasts as long as the download."""

_ATTEMPTS = 5
_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without a byte


def _silent(name: str) -> contextlib.AbstractContextManager[Progress]:
    return contextlib.nullcontext(lambda done, total: None)


_show_progress: ProgressFactory = _silent


def set_progress(factory: ProgressFactory | None) -> None:
    """Sets how downloads report progress if no callback is passed; None, the initial value: no reports."""
    global _show_progress
    _show_progress = factory or _silent


def cache_folder() -> Path:
    """$ZEROSHIFT_CACHE, or zeroshift in $XDG_CACHE_HOME, or in ~/.cache."""
    if os.environ.get("ZEROSHIFT_CACHE"):
        return Path(os.environ["ZEROSHIFT_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "zeroshift"


def download(address: str, target: Path, progress: Progress | None = None) -> Path:
    """Downloads `address` to `target` unless that exists. Processes that want the same file wait for each other.

    The file is called target + ".part" until it is complete; a later call resumes it.

    Args:
        progress: called as bytes arrive; None: the callback from `set_progress`.

    Raises:
        ZeroshiftError: no network, an address that does not serve a file, an interrupted download, or a target that
            cannot be written.
    """
    part = target.with_name(f"{target.name}.part")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock")):
            if not target.exists():
                _fetch(address, part, progress)
                os.replace(part, target)
    return target


def _fetch(address: str, part: Path, progress: Progress | None) -> None:
    """Downloads to `part`; resumes when a connection breaks, up to `_ATTEMPTS` times."""
    context = contextlib.nullcontext(progress) if progress is not None else _show_progress(part.stem)
    with context as show:
        for _ in range(_ATTEMPTS):
            if _fetch_rest(address, part, show):
                return
    raise ZeroshiftError(
        f"The download of {address} was interrupted after {part.stat().st_size / 1e6:.1f} MB. "
        "Run the same command again to resume it."
    )


def _fetch_rest(address: str, part: Path, show: Progress) -> bool:
    """Appends to `part` until the file is complete (True) or the connection breaks (False)."""
    start = part.stat().st_size if part.exists() else 0
    try:
        response = _open(address, start)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing after `start`
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return True
            part.unlink()  # part of another file
            return False
        raise ZeroshiftError(f"Cannot download {address}: the server says {error.code} {error.reason}.") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ZeroshiftError(
            f"{address} cannot be reached ({reason}). Check the network, or download the file elsewhere and give its "
            "path."
        ) from error
    with response:
        if response.headers.get_content_type() == "text/html":
            raise ZeroshiftError(f"{address} serves a web page instead of the file. Open it in a browser to see why.")
        resumes = response.status == 206
        if resumes and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise ZeroshiftError(f"Cannot download {address}: the server sent another part of the file than requested.")
        length = response.headers.get("Content-Length")
        with open(part, "ab" if resumes else "wb") as file:
            total = None if length is None else file.tell() + int(length)
            try:
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    show(file.tell(), total)
            except (HTTPException, ConnectionError, TimeoutError):
                return False
            file.flush()
            os.fsync(file.fileno())
            return total is None or file.tell() == total


def _open(address: str, start: int) -> HTTPResponse:
    headers = {"User-Agent": "zeroshift", **({"Range": f"bytes={start}-"} if start else {})}
    request = urllib.request.Request(address, headers=headers)
    response: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)
    return response
