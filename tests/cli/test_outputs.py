"""What commands write: nobody else's files are lost, no work is lost, and nothing is left behind."""

import contextlib
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.evaluated_runs import make_run
from zeroshift import RunFolder
from zeroshift.cli.main import main
from zeroshift.errors import ZeroshiftError
from zeroshift.evaluation import evaluate as evaluation
from zeroshift.io.leftovers import TEMPORARY_PREFIX
from zeroshift.report import page

pytestmark = pytest.mark.slow

FILM = ("--seeds", "0", "--seconds", "0.2", "--fps", "5")


@pytest.fixture(scope="module")
def made(tiny_generator: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tiny_generator, tmp_path_factory.mktemp("runs") / "run").path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, " ".join(captured.err.split())


def draw(path: Path) -> bytes:
    """A picture of the user."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    return path.read_bytes()


def in_child(command: Callable[[], int], log: Path) -> int:
    """The exit code of a command in a process of its own, which writes to `log`; -N if signal N ended it."""
    process = os.fork()
    if process == 0:
        code = 99
        with contextlib.suppress(BaseException):
            descriptor = os.open(log, os.O_CREAT | os.O_WRONLY)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
            code = command()
            sys.stderr.flush()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(f"{TEMPORARY_PREFIX}*"))


def test_generate_removes_only_its_own_samples(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert call(capsys, "generate", run, "--num", 4, "--out", out)[0] == 0
    mine = draw(out / "target" / "0100.png")
    assert call(capsys, "generate", run, "--num", 2, "--out", out)[0] == 0
    assert sorted(path.name for path in (out / "target").iterdir()) == ["00000000.png", "00000001.png", "0100.png"]
    assert (out / "target" / "0100.png").read_bytes() == mine
    assert call(capsys, "generate", run, "--num", 3, "--out", out)[0] == 0
    before = (out / "grid.png").read_bytes()
    mine = draw(out / "source" / "00000003.png")
    code, _, err = call(capsys, "generate", run, "--num", 4, "--out", out)
    assert code == 1
    assert "00000003.png exists, and zeroshift cannot tell that it has written it." in err
    assert (out / "source" / "00000003.png").read_bytes() == mine
    assert (out / "grid.png").read_bytes() == before, "refused before anything is written"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("generate", "{run}", "--num", "1", "--out", "{out}"), "grid.png"),
        (("interpolate", "{run}", *FILM, "--out", "{out}/walk.mp4"), "walk.mp4"),
        (("interpolate", "{run}", *FILM, "--out", "{out}/walk.gif"), "walk.gif"),
        (("export", "{run}", "--out", "{out}/w.safetensors"), "w.safetensors"),
        (("evaluate", "{run}", "--metrics", "scs", "--num", "14", "--out", "{out}/README"), "README.md"),
        (("miniature", "sheet", "--num", "1", "--out", "{out}/sheet.png"), "sheet.png"),
        (("miniature", "factors", "--out", "{out}/factors.png"), "factors.png"),
        (("miniature", "photos", "--num", "1", "--out", "{out}"), "00000000.png"),
        (("benchmark", "--size", "smoke", "--out", "{out}/b", "--page", "{out}/README.md"), "README.md"),
    ],
)
def test_files_of_others_are_not_replaced_and_own_ones_are(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], name: str
) -> None:
    out = tmp_path / "out"
    filled = [argument.format(run=run, out=out) for argument in arguments]
    out.mkdir()
    (out / name).write_bytes(b"mine")
    started = time.monotonic()
    code, _, err = call(capsys, *filled)
    assert code == 1
    assert f"{name} exists, and zeroshift cannot tell" in err
    assert [path.name for path in out.iterdir()] == [name], "nothing is written"
    assert (out / name).read_bytes() == b"mine"
    if arguments[0] == "benchmark":  # its page has tests of its own
        assert time.monotonic() - started < 30
        return
    (out / name).unlink()
    for _ in range(2):
        assert call(capsys, *filled)[0] == 0
    assert (out / name).stat().st_size > 4
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "{run}", "--num", "1", "--out", "{file}/out"),
        ("interpolate", "{run}", *FILM, "--out", "{file}/walk.mp4"),
        ("interpolate", "{run}", *FILM, "--out", "{folder}"),
        ("export", "{run}", "--out", "{file}/w.safetensors"),
        ("export", "{run}", "--out", "{folder}"),
        ("evaluate", "{run}", "--metrics", "scs", "--num", "14", "--out", "{file}/table"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_models_are_loaded(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    from zeroshift.generators.checkpoints import files

    (tmp_path / "file.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    monkeypatch.setattr(files, "load_generator", lambda *_, **__: pytest.fail("the work began"))
    before = sorted(tmp_path.rglob("*"))
    filled = [each.format(run=run, file=tmp_path / "file.mp4", folder=tmp_path / "folder.mp4") for each in arguments]
    code, _, err = call(capsys, *filled)
    assert code == 1
    assert "a file exists where a folder is needed" in err or "is a folder; a file is to be written there" in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("fails", ["append_result", "write_report"])
def test_results_are_shown_even_if_they_cannot_be_saved(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def full(*_: object) -> None:
        raise ZeroshiftError("The disk is full: metrics could not be written.")

    monkeypatch.setattr(evaluation if fails == "append_result" else page, fails, full)
    code, out, err = call(capsys, "evaluate", run, "--metrics", "scs", "--num", "14")
    assert code == 1
    assert "scs ↑" in out
    assert err.count("The disk is full") == 1


def test_a_failing_run_does_not_lose_the_results_of_the_others(
    run: Path, tiny_generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = make_run(tiny_generator, tmp_path / "broken")
    broken.generator_path.write_bytes(broken.generator_path.read_bytes()[:-100])
    code, out, err = call(capsys, "evaluate", run, broken.path, "--metrics", "scs", "--num", "14")
    assert code == 1
    assert "scs ↑" in out
    assert str(broken.generator_path) in err


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        (("generate", "{run}", "--num", "3", "--out", "{out}"), "grid.png"),
        (("interpolate", "{run}", *FILM, "--out", "{out}/walk.mp4"), "walk.mp4"),
        (("export", "{run}", "--out", "{out}/w.safetensors"), "w.safetensors"),
        (("evaluate", "{run}", "--metrics", "scs", "--num", "14", "--out", "{out}/table"), "table.md"),
    ],
)
def test_a_kill_leaves_nothing_after_the_same_command(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], result: str
) -> None:
    """The process is killed while its first output is written."""
    out = tmp_path / "out"
    filled = [argument.format(run=run, out=out) for argument in arguments]

    def command() -> int:
        os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
        return main(filled)

    assert in_child(command, tmp_path / "log") == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert len(leftovers(tmp_path)) == 1
    assert call(capsys, *filled)[0] == 0
    assert leftovers(tmp_path) == []
    assert (out / result).exists()


def test_a_file_size_limit_is_a_sentence(run: Path, tmp_path: Path) -> None:
    def command() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        return main(["generate", str(run), "--num", "64", "--out", str(tmp_path / "out")])

    log = tmp_path / "log"
    assert in_child(command, log) == 1
    assert "grid.png could not be written: it is larger than files may be here" in " ".join(log.read_text().split())
    assert "Traceback" not in log.read_text()
    assert leftovers(tmp_path) == []


def test_a_read_only_run_is_told_before_it_is_measured(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a normal user; the superuser may write anywhere, so the refusal is simulated."""
    write = Path.write_bytes

    def refuse(self: Path, data: bytes) -> int:
        if self.parent == run:
            raise PermissionError(13, os.strerror(13), str(self))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    for command in ("evaluate", "export", "interpolate"):
        code, _, err = call(capsys, command, run)
        assert code == 1
        assert f"No permission to write {run}" in err
    assert RunFolder.read(run).generator_path.exists()
