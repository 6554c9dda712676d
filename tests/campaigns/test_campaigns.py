"""A small part of every campaign (docs/reliability.md has the whole ones), and whether they notice faults."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.campaigns.contents import broken_files, contents, differences
from tests.campaigns.process import Outcome, run_command
from tests.campaigns.sentences import failure_problems
from tests.campaigns.tripwire import Tripwire
from zeroshift.io.films import save_film
from zeroshift.io.images import save_png

forks = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # of Python 3.12, in threaded processes
linux = pytest.mark.skipif(sys.platform != "linux", reason="campaigns need Linux")


@linux
@pytest.mark.slow
def test_no_command_loses_anything() -> None:
    folder = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.campaigns.small", "--seed", "0"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"


def write_files(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    save_png(folder / "image.png", pixels)
    save_film(folder / "film.mp4", [pixels] * 3, 8)
    save_film(folder / "film.gif", [pixels, 255 - pixels], 8)
    save_film(folder / "film.webp", [pixels, 255 - pixels], 8)
    save_file({"weight": torch.ones(9)}, folder / "weights.safetensors")
    torch.save({"weight": torch.ones(9)}, folder / "state.pt")
    (folder / "page.html").write_text("<html>\n</html>\n")
    (folder / "values.json").write_text('{"value": 1}\n')
    (folder / "log.jsonl").write_text('{"value": 1, "seconds": 1.5}\n{"value": 2}\n')


def test_half_written_files_are_found(tmp_path: Path) -> None:
    write_files(tmp_path)
    assert broken_files(tmp_path) == []
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (tmp_path / "log.jsonl").write_text('{"value"\n{"value": 2}\n')
    assert len(broken_files(tmp_path)) == len(list(tmp_path.iterdir()))


def test_contents_differ_by_anything_but_times(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        write_files(tmp_path / name)
    one, other = tmp_path / "one", tmp_path / "other"
    (other / "log.jsonl").write_text('{"value": 1, "seconds": 2.5}\n{"value": 2}\n')
    assert differences(contents(one), contents(other)) == []
    torch.save({"weight": torch.zeros(9)}, other / "state.pt")
    (other / ".zeroshift-0").touch()
    (other / "image.png").unlink()
    found = differences(contents(one), contents(other))
    assert found == [".zeroshift-0 is left over", "image.png is missing", "state.pt is different"]


@linux
@forks
def test_a_command_runs_in_its_own_process(tmp_path: Path) -> None:
    outcome = run_command(["generate", "nothing"], tmp_path)
    assert failure_problems(outcome, "nothing is not a run folder") == []
    killed = run_command(["generate", "nothing"], tmp_path, prepare=lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert killed.code == -signal.SIGKILL


@linux
@forks
def test_the_tripwire_stops_before_the_file_operation(tmp_path: Path) -> None:
    wire = Tripwire(tmp_path, 3, lambda: os._exit(9))

    def write() -> None:
        wire.install()
        for name in ("first", "second", "third"):
            (tmp_path / name).write_text(name)

    assert run_command(["--version"], tmp_path, prepare=write).code == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]
    assert wire.count == 3


def test_a_failure_must_be_one_sentence() -> None:
    good = Outcome(1, "", "Error: run is not a run folder.", 0.1, 0)
    assert failure_problems(good) == []
    assert failure_problems(good, "disk") != []
    bad = [(0, good.err), (1, ""), (1, good.err * 2), (1, f"Traceback\n{good.err}"), (1, f"Error: {'word ' * 200}")]
    for code, err in bad:
        assert failure_problems(Outcome(code, "", err, 0.1, 0)) != []
