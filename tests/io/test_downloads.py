"""Downloads from a local server that works or fails."""

import contextlib
import hashlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from zeroshift.errors import ZeroshiftError
from zeroshift.io.download_progress import set_progress
from zeroshift.io.downloads import cache_folder, download

pytestmark = pytest.mark.slow

CONTENT = bytes(range(256)) * 2000


class Server(ThreadingHTTPServer):
    """Serves CONTENT at any address and records the requested ranges."""

    ranges = True  # whether range requests are supported
    breaks_after: int | None = None  # bytes per response
    announces_length = True
    offset = 0  # of a response, relative to the requested range
    kind = "application/octet-stream"
    redirects_to: str | None = None

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/ffhq.pkl"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if "missing" in self.path:
            return self.send_error(404)
        if self.server.redirects_to:
            self.send_response(302)
            self.send_header("Location", self.server.redirects_to)
            return self.end_headers()
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if start and start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        start += self.server.offset
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Type", self.server.kind)
        if self.server.announces_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.breaks_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "ffhq.pkl"


def part_of(target):
    return target.with_name("ffhq.pkl.part")


@pytest.mark.parametrize("announces_length", [True, False])
def test_downloads_once(server, target, announces_length):
    server.announces_length = announces_length
    assert download(server.address, target) == target
    assert target.read_bytes() == CONTENT
    assert not part_of(target).exists()
    download(server.address, target)
    assert server.asked == [None]


def test_resumes_the_part_of_an_earlier_call(server, target):
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT[:1000])
    download(server.address, target)
    assert target.read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]


def test_resumes_after_a_broken_connection(server, target):
    server.breaks_after = len(CONTENT) // 3
    download(server.address, target)
    assert target.read_bytes() == CONTENT
    third = len(CONTENT) // 3
    assert server.asked == [None, f"bytes={third}-", f"bytes={2 * third}-", f"bytes={3 * third}-"]


def test_restarts_if_the_server_does_not_support_ranges(server, target):
    target.parent.mkdir()
    part_of(target).write_bytes(b"x" * 1000)
    server.ranges = False
    download(server.address, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_gives_up_on_a_server_that_always_disconnects(server, target, ranges):
    server.breaks_after, server.ranges = 100_000 if not ranges else 1000, ranges
    with pytest.raises(ZeroshiftError, match=r"was interrupted after 0\.\d MB.*to resume it"):
        download(server.address, target)
    assert not target.exists()
    assert CONTENT.startswith(part_of(target).read_bytes())
    server.breaks_after = None
    download(server.address, target)
    assert target.read_bytes() == CONTENT


def test_a_complete_part_is_kept(server, target):
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT)
    download(server.address, target)
    assert target.read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_part_of_another_file_is_discarded(server, target):
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT + b"more")
    download(server.address, target)
    assert target.read_bytes() == CONTENT


def test_wrong_range(server, target):
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT[:1000])
    server.offset = 7
    with pytest.raises(ZeroshiftError, match="another part"):
        download(server.address, target)
    assert not target.exists()


def test_not_found(server, target):
    with pytest.raises(ZeroshiftError, match="says 404 Not Found"):
        download(server.address.replace("ffhq", "missing"), target)
    assert [path.suffix for path in target.parent.iterdir()] == [".lock"]


def test_web_page_instead_of_a_file(server, target):
    server.kind = "text/html"
    with pytest.raises(ZeroshiftError, match="web page"):
        download(server.address, target)
    assert not target.exists()


def test_no_network(target):
    with Server() as server:  # a port that is no longer in use
        address = server.address
    with pytest.raises(ZeroshiftError, match=r"cannot be reached.*Check the network"):
        download(address, target)
    with pytest.raises(ZeroshiftError, match="cannot be reached"):
        download("https://no-such-host.invalid/ffhq.pkl", target)


def test_a_server_without_an_answer_is_given_up_within_seconds(target, monkeypatch):
    ended = threading.Event()

    def no_answer(*_, **__):
        ended.wait(30)
        raise OSError("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", no_answer)
    start = time.monotonic()
    with pytest.raises(ZeroshiftError, match="cannot be reached \\(no answer within 3 seconds\\)"):
        download("https://drops-every-packet.invalid/ffhq.pkl", target)
    with pytest.raises(ZeroshiftError, match="cannot be reached"):
        download("https://drops-every-packet.invalid/other.pkl", target)
    assert time.monotonic() - start < 5, "a server that was out of reach is not tried again at once"
    ended.set()


@pytest.mark.parametrize("host", ["a" * 70 + ".invalid", "b..invalid"])
def test_a_host_name_that_cannot_exist_cannot_be_reached(host, target):
    with pytest.raises(ZeroshiftError, match="cannot be reached"):
        download(f"https://{host}/ffhq.pkl", target)


@pytest.mark.parametrize(
    "address", ["http://example.com/a.pkl", "ftp://example.com/a.pkl", "file:///etc/passwd", "a.pkl"]
)
def test_only_https_addresses_are_downloaded(address, target):
    with pytest.raises(ZeroshiftError, match=r"only https addresses are safe.* give its path"):
        download(address, target)
    assert not target.exists()


def test_a_redirection_to_plain_http_is_refused(server, target):
    server.redirects_to = "http://example.com/ffhq.pkl"
    with pytest.raises(ZeroshiftError, match=r"http://example\.com/ffhq\.pkl is not downloaded"):
        download(server.address, target)


@pytest.mark.parametrize("digits", [8, 64])
def test_the_sha256_of_a_download_is_compared(server, target, digits):
    expected = hashlib.sha256(CONTENT).hexdigest()[:digits]
    assert download(server.address, target, sha256=expected).read_bytes() == CONTENT
    other = target.with_name("other.pkl")
    with pytest.raises(ZeroshiftError, match="sent another file than expected: its SHA-256 is"):
        download(server.address, other, sha256="0" * digits)
    assert sorted(path.name for path in target.parent.glob("other*")) == ["other.pkl.lock"], "nothing was kept"


def test_without_a_known_sha256_the_first_download_sets_it(server, target):
    download(server.address, target)
    assert target.with_name("ffhq.pkl.sha256").read_text().strip() == hashlib.sha256(CONTENT).hexdigest()
    target.unlink()
    download(server.address, target)
    target.unlink()
    target.with_name("ffhq.pkl.sha256").write_text("0" * 64)
    with pytest.raises(ZeroshiftError, match="sent another file than expected"):
        download(server.address, target)


def test_unwritable_cache(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ZeroshiftError, match="a file exists where a folder is needed"):
        download(server.address, tmp_path / "file" / "ffhq.pkl")


def test_concurrent_calls_download_a_file_once(server, target):
    threads = [threading.Thread(target=download, args=(server.address, target)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == CONTENT
    assert server.asked == [None]


def test_progress_is_reported_to_the_callback(server, target, capsys):
    reports = []
    download(server.address, target, lambda done, total: reports.append((done, total)))
    assert reports[-1] == (len(CONTENT), len(CONTENT))
    named = {}

    @contextlib.contextmanager
    def show(name):
        named[name] = []
        yield lambda done, total: named[name].append(done)

    set_progress(show)
    try:
        download(server.address, target.with_name("other.pkl"))
    finally:
        set_progress(None)
    assert named["other.pkl"][-1] == len(CONTENT)
    download(server.address, target.with_name("third.pkl"))
    assert list(named) == ["other.pkl"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"ZEROSHIFT_CACHE": "/big/disk", "XDG_CACHE_HOME": "/xdg"}, "/big/disk"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/zeroshift"),
        ({"HOME": "/home/somebody"}, "/home/somebody/.cache/zeroshift"),
    ],
)
def test_cache_folder(monkeypatch, variables, folder):
    for name in ("ZEROSHIFT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)
