"""The folder for a Space runs on its own, and the command refuses what it should."""

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.studio.conftest import free_port
from zeroshift.cli.main import main
from zeroshift.errors import ZeroshiftError
from zeroshift.studio.engine.space import write_space
from zeroshift.studio.engine.studio import Studio
from zeroshift.training.run_folder import RunFolder


@pytest.fixture
def pages() -> ModuleType:
    """The server. It brings gradio, whose import takes seconds."""
    from zeroshift.studio.pages import app

    return app


def get(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as answer:
        return str(answer.read().decode())


def refusal(asked: str | urllib.request.Request) -> int:
    """The status of a request that the server refuses."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(asked, timeout=10)
    with caught.value as error:  # it holds the connection
        return error.code


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
def test_the_folder_of_a_space_runs_without_the_package_and_shows_its_runs(runs: Path, tmp_path: Path) -> None:
    space, port = tmp_path / "space", free_port()
    assert main(["studio", str(runs / "zombie"), str(runs / "sketch"), "--share-folder", str(space)]) == 0
    card = (space / "README.md").read_text(encoding="utf-8")
    assert re.search(r"sdk: gradio\nsdk_version: [0-9.]+\napp_file: app.py", card)
    assert "pencil sketch" in card
    assert str(tmp_path) not in card + (space / "runs" / "zombie" / "config.json").read_text(encoding="utf-8")
    assert {"torch", "gradio"} <= {
        re.split(r"[<>=~!]", line)[0] for line in (space / "requirements.txt").read_text().splitlines()
    }
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "PYTHONPATH": ""}
    log = tmp_path / "log"
    with open(log, "wb") as output:
        server = subprocess.Popen(
            [sys.executable, "app.py"], cwd=space, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while True:
            try:
                page = get(address)
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.2)
        assert "zombie" in page, "the runs are in the page's configuration"
        assert "Start the run" not in page, "a Space does not train"
        maps = Path(f"/proc/{server.pid}/cwd").resolve()
        assert maps == space.resolve()
    finally:
        server.terminate()
        server.wait(60)


def test_a_space_needs_finished_runs_of_one_source_and_a_folder_of_its_own(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ZeroshiftError, match="Name the runs to share"):
        write_space([], tmp_path / "space")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("keep")
    with pytest.raises(ZeroshiftError, match="is not empty"):
        write_space([RunFolder.read(runs / "zombie")], tmp_path / "full")
    (runs / "sketch" / "generator.safetensors").unlink()
    with pytest.raises(ZeroshiftError, match="not finished"):
        write_space([RunFolder.read(runs / "sketch")], tmp_path / "space")
    assert not (tmp_path / "space").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--host", "0.0.0.0", "--no-browser"], "Give a password too"),
        (["runs/zombie"], "only with --share-folder"),
        (["runs/nothing", "--share-folder", "space"], "not a run folder"),
        (["--models", "nowhere"], "no folder nowhere"),
    ],
)
def test_wrong_use_of_the_command_is_a_sentence(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZEROSHIFT_STUDIO_PASSWORD", raising=False)
    assert main(["studio", *words]) == 1
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_without_gradio_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "gradio" else find(name, *rest)
    )
    assert main(["studio"]) == 1
    assert "pip install 'zeroshift[studio]'" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_port_that_was_just_taken_is_no_obstacle(pages: ModuleType) -> None:
    async def launch(number: int) -> Any:
        if number < 7862:
            raise OSError("in use")
        return "page"

    assert pages._launched(launch, range(7860, 7960), "127.0.0.1") == ("page", 7862)
    with pytest.raises(ZeroshiftError, match=r"cannot listen on 127.0.0.1:7861 \(in use\)"):
        pages._launched(launch, [7861], "127.0.0.1")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_with_a_password_nothing_is_told_without_it(studio: Studio, pages: ModuleType) -> None:
    with pages.served(studio, port=free_port(), password="a secret") as address:
        for path in ("/config", "/gradio_api/info", "/gradio_api/file=/etc/passwd"):
            assert refusal(address + path) == 401
        assert "zombie" not in get(address)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_no_file_is_served_from_outside_and_the_policy_is_sent(studio: Studio, runs: Path, pages: ModuleType) -> None:
    with pages.served(studio, port=free_port()) as address:
        for path in ("/etc/passwd", runs / "zombie" / "config.json", Path(__file__)):
            assert refusal(f"{address}/gradio_api/file={path}") in (403, 404)
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert refusal(urllib.request.Request(address, headers={"Host": "evil.example"})) == 403
