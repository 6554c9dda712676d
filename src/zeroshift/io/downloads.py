"""Resumable downloads into a cache folder."""

import contextlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import disk_errors

__all__ = ["cache_folder", "download"]

_ATTEMPTS = 5

_CHUNK = 1 << 20

_TIMEOUT = 30  # seconds without a byte


def cache_folder() -> Path:
    """$ZEROSHIFT_CACHE, or zeroshift in $XDG_CACHE_HOME, or in ~/.cache."""
    if os.environ.get("ZEROSHIFT_CACHE"):
        return Path(os.environ["ZEROSHIFT_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "zeroshift"


def download(address: str, target: Path) -> Path:
    """Fetches `address` to `target`, unless it is there; processes that want the same file take turns.

    What has arrived lies in target + ".part" until it is whole, and a later call goes on from there.

    Raises:
        ZeroshiftError: no network, an address that does not answer with a file, an interrupted or unwritable file.
    """
    part = target.with_name(f"{target.name}.part")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock")):
            if not target.exists():
                _fetch_whole(address, part)
                os.replace(part, target)
    return target


def _fetch_whole(address: str, part: Path) -> None:
    """Asks again for what is missing when a connection breaks, up to `_ATTEMPTS` times."""
    with _progress_bar(part.stem) as show:
        for _ in range(_ATTEMPTS):
            if _fetch_rest(address, part, show):
                return
    raise ZeroshiftError(
        f"The download of {address} broke off after {part.stat().st_size / 1e6:.1f} MB. "
        "The same command goes on from there."
    )


def _fetch_rest(address: str, part: Path, show: Callable[[int, int | None], None]) -> bool:
    """Appends to `part` what the server still has, as far as the connection holds; True once `part` is whole."""
    start = part.stat().st_size if part.exists() else 0
    try:
        response = _open(address, start)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # there is nothing from `start` on
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return True
            part.unlink()  # of another file
            return False
        raise ZeroshiftError(f"{address} cannot be had: the server says {error.code} {error.reason}.") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ZeroshiftError(
            f"{address} cannot be reached ({reason}). Check the network, or fetch the file elsewhere and give its path."
        ) from error
    with response:
        if response.headers.get_content_type() == "text/html":
            raise ZeroshiftError(
                f"{address} answers with a web page, not with the file: open it in a browser to see why."
            )
        resumes = response.status == 206
        if resumes and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise ZeroshiftError(f"{address} cannot be had: the server sent another part of it than was asked for.")
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
    return urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=_TIMEOUT)


@contextlib.contextmanager
def _progress_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Gives a function of (bytes that are there, bytes there will be) that moves a bar on the terminal."""
    left = (TextColumn("{task.description}"), BarColumn())
    with Progress(
        *left, DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), console=Console(stderr=True)
    ) as progress:
        task = progress.add_task(name, total=None)
        yield lambda there, total: progress.update(task, completed=there, total=total)
