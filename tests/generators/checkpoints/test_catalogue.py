"""Known checkpoints and their download, against a server on this machine that behaves well or badly."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints import catalogue as hub
from zeroshift.generators.checkpoints.files import load_generator

CONTENT = bytes(range(256)) * 2000


class Server(ThreadingHTTPServer):
    """Serves CONTENT at any address; remembers the ranges asked for."""

    ranges = True  # understands them
    breaks_after: int | None = None  # bytes an answer
    announces_length = True
    offset = 0  # of an answer, from what was asked
    kind = "application/octet-stream"

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
    assert hub.download(server.address, target) == target
    assert target.read_bytes() == CONTENT
    assert not part_of(target).exists()
    hub.download(server.address, target)
    assert server.asked == [None]


def test_resumes_what_an_earlier_call_left(server, target):
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT[:1000])
    hub.download(server.address, target)
    assert target.read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]


def test_goes_on_after_a_broken_connection(server, target):
    server.breaks_after = len(CONTENT) // 3
    hub.download(server.address, target)
    assert target.read_bytes() == CONTENT
    third = len(CONTENT) // 3
    assert server.asked == [None, f"bytes={third}-", f"bytes={2 * third}-", f"bytes={3 * third}-"]


def test_starts_again_where_the_server_knows_no_ranges(server, target):
    target.parent.mkdir()
    part_of(target).write_bytes(b"x" * 1000)
    server.ranges = False
    hub.download(server.address, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_gives_up_on_a_server_that_always_breaks_off(server, target, ranges):
    server.breaks_after, server.ranges = 100_000 if not ranges else 1000, ranges
    with pytest.raises(ZeroshiftError, match=r"broke off after 0\.\d MB.*goes on"):
        hub.download(server.address, target)
    assert not target.exists()
    assert CONTENT.startswith(part_of(target).read_bytes())
    server.breaks_after = None
    hub.download(server.address, target)
    assert target.read_bytes() == CONTENT


def test_a_part_that_was_whole(server, target):
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT)
    hub.download(server.address, target)
    assert target.read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_part_of_another_file_is_thrown_away(server, target):
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT + b"more")
    hub.download(server.address, target)
    assert target.read_bytes() == CONTENT


def test_wrong_range(server, target):
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT[:1000])
    server.offset = 7
    with pytest.raises(ZeroshiftError, match="another part"):
        hub.download(server.address, target)
    assert not target.exists()


def test_not_found(server, target):
    with pytest.raises(ZeroshiftError, match="says 404 Not Found"):
        hub.download(server.address.replace("ffhq", "missing"), target)
    assert [path.suffix for path in target.parent.iterdir()] == [".lock"]


def test_web_page_instead_of_a_file(server, target):
    server.kind = "text/html"
    with pytest.raises(ZeroshiftError, match="web page"):
        hub.download(server.address, target)
    assert not target.exists()


def test_no_network(target):
    with Server() as server:  # a port that was free a moment ago
        address = server.address
    with pytest.raises(ZeroshiftError, match=r"cannot be reached.*Check the network"):
        hub.download(address, target)
    with pytest.raises(ZeroshiftError, match="cannot be reached"):
        hub.download("http://no-such-host.invalid/ffhq.pkl", target)


def test_unwritable_cache(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ZeroshiftError, match="a file stands where a folder is needed"):
        hub.download(server.address, tmp_path / "file" / "ffhq.pkl")


def test_two_at_once_fetch_one_file(server, target):
    threads = [threading.Thread(target=hub.download, args=(server.address, target)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == CONTENT
    assert server.asked == [None]


def test_resolve_uses_the_cache(server, monkeypatch, tmp_path):
    table = [hub.Checkpoint("ffhq", "stylegan2", 1024, "free", None, server.address)]
    monkeypatch.setattr(hub, "known_checkpoints", lambda: table)
    monkeypatch.setenv("ZEROSHIFT_CACHE", str(tmp_path / "cache"))
    path = hub.resolve("ffhq")
    assert path == tmp_path / "cache" / "generators" / "ffhq.pkl"
    assert path.read_bytes() == CONTENT
    assert hub.resolve("ffhq") == path
    assert len(server.asked) == 1


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
    assert hub.cache_folder() == Path(folder)


def test_load_generator_knows_the_names(tiny_generator, monkeypatch, tmp_path):
    monkeypatch.setenv("ZEROSHIFT_CACHE", str(tmp_path))
    (tmp_path / "generators").mkdir()
    (tmp_path / "generators" / "afhqdog.pkl").write_bytes(tiny_generator.read_bytes())
    assert load_generator("afhqdog").resolution == 16
    with pytest.raises(ZeroshiftError, match="Did you mean afhqdog"):
        load_generator("afhqdogs")


def test_unknown_names():
    with pytest.raises(ZeroshiftError, match=r"no known generator 'fhq'. Did you mean ffhq .*file's path"):
        hub.resolve("fhq")
    with pytest.raises(ZeroshiftError, match=r"'&&&'. `zeroshift models`"):
        hub.resolve("&&&")


def test_known_checkpoints():
    known = hub.known_checkpoints()
    assert known[0].name == "miniature"
    embedded = [checkpoint for checkpoint in known if checkpoint.name in hub.EMBEDDED]
    assert all(checkpoint.resolution == 64 and checkpoint.address is None for checkpoint in embedded)
    assert hub.resolve("miniature").parts[-3:] == ("miniature", "weights", "generator.safetensors")
    names = [checkpoint.name for checkpoint in known]
    assert len(set(names)) == len(names) == len(embedded) + 12 + 15 + 12 + 10
    addresses = {checkpoint.name: checkpoint.address for checkpoint in known}
    nvidia = "https://api.ngc.nvidia.com/v2/models/nvidia/research"
    assert addresses["ffhq"] == "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/ffhq.pkl"
    for family, name in (("stylegan3", "stylegan3-r-afhqv2-512x512"), ("stylegan2", "stylegan2-cifar10-32x32")):
        assert addresses[name] == f"{nvidia}/{family}/versions/1/files/{name}.pkl"
    for checkpoint in known[len(embedded) :]:
        assert checkpoint.address.startswith("https://")
        assert checkpoint.architecture in ("stylegan2", "stylegan3", "diffusion")
        if "x" in checkpoint.name.split("-")[-1]:
            assert checkpoint.name.endswith(f"-{checkpoint.resolution}x{checkpoint.resolution}")


def test_an_embedded_model_that_is_not_trained_yet(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "_embedded", lambda name: tmp_path / name)
    assert "miniature-diffusion" not in [checkpoint.name for checkpoint in hub.known_checkpoints()]
    with pytest.raises(ZeroshiftError, match="zeroshift miniature train diffusion"):
        hub.resolve("miniature-diffusion")
