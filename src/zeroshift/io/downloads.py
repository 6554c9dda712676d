"""Resumable downloads into a cache folder."""

import contextlib
import os
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from filelock import FileLock

from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import disk_errors
from zeroshift.io.caches import cache_folder
from zeroshift.io.connection import unreachable
from zeroshift.io.download_progress import Progress, show_progress
from zeroshift.io.owned_folder import file_digest

__all__ = ["cache_folder", "download"]

_ATTEMPTS = 5
_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without a byte
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def download(address: str, target: Path, progress: Progress | None = None, sha256: str = "") -> Path:
    """Downloads `address` to `target` unless that exists. Processes that want the same file wait for each other.

    The file is called target + ".part" until it is complete; a later call resumes it. Its SHA-256 is compared with
    `sha256`. If that is unknown, the one of the first download is recorded in target + ".sha256", and later downloads
    of the same file must match it.

    Args:
        address: https only, or a server on this machine.
        progress: called as bytes arrive; None: the callback from `set_progress`.
        sha256: hexadecimal digits of the expected SHA-256, all 64 or the first ones; empty if unknown.

    Raises:
        ZeroshiftError: no network, an address that does not serve a file, an interrupted download, another file than
            expected, or a target that cannot be written.
    """
    if target.exists():  # in a folder that may be read-only
        return target
    _require_https(address)
    part = target.with_name(f"{target.name}.part")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock")):
            if not target.exists():
                _fetch(address, part, progress)
                _verify(part, target, address, sha256)
                os.replace(part, target)
    return target


def _require_https(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _THIS_MACHINE):
        raise ZeroshiftError(
            f"{address} is not downloaded, because only https addresses are safe from changes on the way. "
            "Download the file yourself and give its path."
        )


def _verify(part: Path, target: Path, address: str, expected: str) -> None:
    """Compares the SHA-256 of a downloaded file with the expected one, or with the recorded one of the first time."""
    record = target.with_name(f"{target.name}.sha256")
    if not expected and record.exists():
        expected = record.read_text(encoding="utf-8").strip()
    actual = file_digest(part)
    if not actual.startswith(expected):
        part.unlink()
        raise ZeroshiftError(
            f"{address} sent another file than expected: its SHA-256 is {actual[:16]}…, not {expected[:16]}…. Run the "
            f"command again; if this repeats, the file has changed at its source. Nothing was kept."
        )
    record.write_text(actual + "\n", encoding="utf-8")


def _fetch(address: str, part: Path, progress: Progress | None) -> None:
    """Downloads to `part`; resumes when a connection breaks, up to `_ATTEMPTS` times."""
    reason = unreachable(address)
    if reason:
        raise _cannot_reach(address, reason)
    context = contextlib.nullcontext(progress) if progress is not None else show_progress(part.stem)
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
        error.close()
        if error.code == 416 and start:  # nothing after `start`
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return True
            part.unlink()  # part of another file
            return False
        raise ZeroshiftError(f"Cannot download {address}: the server says {error.code} {error.reason}.") from error
    except (OSError, HTTPException) as error:
        raise _cannot_reach(address, getattr(error, "reason", None) or error) from error
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


def _cannot_reach(address: str, reason: object) -> ZeroshiftError:
    return ZeroshiftError(
        f"{address} cannot be reached ({reason}). Check the network, or download the file elsewhere and give its path."
    )


def _open(address: str, start: int) -> HTTPResponse:
    headers = {"User-Agent": "zeroshift", **({"Range": f"bytes={start}-"} if start else {})}
    request = urllib.request.Request(address, headers=headers)
    response: HTTPResponse = urllib.request.build_opener(_SafeRedirects).open(request, timeout=_TIMEOUT)
    return response


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections to https addresses only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        _require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
