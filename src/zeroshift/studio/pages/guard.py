"""Requests that are answered: from this page and this machine, with limits for uploads, and nothing from elsewhere."""

import collections
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

__all__ = ["LOOPBACK", "Guard"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob: data:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'"
)
_FRAMES = "; frame-ancestors 'none'"
_WINDOW, _MOST = 600.0, 60  # seconds, and uploads within them


class Guard:
    """ASGI middleware.

    Args:
        app: the application.
        local: whether only this machine may ask, by a local name: a page of another site cannot reach the studio
            through a name that it points to this machine (DNS rebinding).
        max_bytes: largest upload.
        framed: whether other sites may show the page in a frame, as Spaces do.
    """

    def __init__(self, app: App, local: bool, max_bytes: int, framed: bool = False):
        self._app, self._local, self._max_bytes = app, local, max_bytes
        self._headers = [
            (b"content-security-policy", (_POLICY if framed else _POLICY + _FRAMES).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"same-origin"),
        ]
        self._uploads: collections.deque[float] = collections.deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await self._refuse(send, *refusal)
            return
        started = False

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": [*message.get("headers", []), *self._headers]}
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except (FileNotFoundError, RuntimeError) as error:
            if started and isinstance(error.__cause__, HTTPException):
                # Gradio ends the stream of events of a page that was closed meanwhile with "not found".
                await send({"type": "http.response.body", "body": b""})
                return
            # A photo that was removed while the browser asked for it; starlette raises one or the other.
            if isinstance(error, RuntimeError) and "does not exist" not in str(error):
                raise
            if not started:
                await self._refuse(send, 404, "This file is not there any more.")

    async def _refuse(self, send: Send, status: int, sentence: str) -> None:
        headers = [(b"content-type", b"text/plain; charset=utf-8"), *self._headers]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": sentence.encode()})

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the sentence with which a request is refused; None: it is answered."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self._local and _name(host) not in LOOPBACK:
            return 403, "The studio answers only to 127.0.0.1 and localhost."
        origin = headers.get("origin")
        if scope["method"] not in ("GET", "HEAD") and origin is not None and urlsplit(origin).netloc != host:
            return 403, "This request comes from another site."
        if scope["method"] == "POST" and scope["path"].rstrip("/").endswith("/upload"):
            return self._upload_refusal(headers.get("content-length", "0"))
        return None

    def _upload_refusal(self, length: str) -> tuple[int, str] | None:
        now = time.monotonic()
        while self._uploads and now - self._uploads[0] > _WINDOW:
            self._uploads.popleft()
        if len(self._uploads) >= _MOST:
            return 429, f"{_MOST} files were sent within {_WINDOW / 60:.0f} minutes. Wait a while."
        if not length.isdigit() or int(length) > self._max_bytes + 65_536:  # with the form around the file
            return 413, f"The file is larger than {self._max_bytes >> 20} MB. Reduce it first."
        self._uploads.append(now)
        return None


def _name(host: str) -> str:
    """The host name of a Host header, without the port."""
    return urlsplit(f"//{host}").hostname or ""
