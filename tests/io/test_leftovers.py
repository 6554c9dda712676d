"""Temporary files of killed processes go; those of running ones stay."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zeroshift.io import leftovers
from zeroshift.io.atomic import atomic_write
from zeroshift.io.leftovers import remove_leftovers, temporary_path

HOLD = """
import sys, time
from pathlib import Path
from zeroshift.io.atomic import atomic_write
with atomic_write(Path(sys.argv[1])) as temporary:
    print(temporary.name, flush=True)
    time.sleep(60)
"""

# Writes by every kind of writer; the N-th file operation is preceded by a signal. Prints what is left.
INTERRUPTED = """
import os, signal, sys
from pathlib import Path
import torch
from tests.campaigns.tripwire import Tripwire
from zeroshift.core.interrupts import interrupts
from zeroshift.io.atomic import atomic_write, set_default_mode
from zeroshift.io.checksums import save_state, save_tensors
from zeroshift.io.outputs import require_writable
from zeroshift.io.owned_folder import replaced_folder
from zeroshift.io.leftovers import TEMPORARY_PREFIX

def write(folder):
    with atomic_write(folder / "text.txt") as temporary:
        temporary.write_text("a")
    set_default_mode(folder / "text.txt")
    save_tensors(folder / "a.safetensors", {"a": torch.zeros(2)})
    save_state(folder / "state.pt", {"a": 1}, folder / "previous.pt")
    require_writable(folder)
    for _ in range(2):
        with replaced_folder(folder / "pipeline", "index.json") as new:
            (new / "a.txt").write_text("a")
            (new / "index.json").write_text("{}")

def trial(folder, number):
    folder.mkdir()
    wire = Tripwire(folder, number, lambda: os.kill(os.getpid(), signal.SIGHUP))
    child = os.fork()
    if not child:
        code = 0
        try:
            with interrupts(restore=False):
                wire.install()
                write(folder)
        except KeyboardInterrupt:
            code = 130
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, wire.count, [path.name for path in folder.rglob(TEMPORARY_PREFIX + "*")]

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, under which the tests may run, ignores it
start = Path(sys.argv[1])
code, operations, left = trial(start / "whole", 0)
print(operations, code, left)
for number in range(1, operations + 1):
    code, _, left = trial(start / str(number), number)
    if code != 130 or left:
        print("operation", number, "exit code", code, "left", left)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the tripwire reads /proc")
def test_a_signal_at_any_file_operation_leaves_no_temporary_file(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2]
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    lines = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.splitlines()
    operations, rest = lines[0].split(maxsplit=1)
    assert int(operations) > 50
    assert rest == "0 []", "an uninterrupted run"
    assert lines[1:] == []


def test_the_next_writer_removes_the_file_of_a_killed_process_but_not_of_a_running_one(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "a.png")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    held = process.stdout.readline().strip()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [held], "its process runs"
    process.kill()
    process.wait()
    process.stdout.close()
    with atomic_write(tmp_path / "b.png") as temporary:
        temporary.write_text("b")
    assert names(tmp_path) == ["b.png"]


def test_names_state_the_process_and_fit_every_file_system(tmp_path: Path) -> None:
    assert f"-{os.getpid()}-" in temporary_path(tmp_path / "a.png").name
    assert temporary_path(tmp_path / "a.png").suffix == ".png"
    assert len(temporary_path(tmp_path / ("a" * 250 + ".png")).name) < 60
    assert len(temporary_path(tmp_path / ("a." + "b" * 250)).name) < 60


def test_reused_process_numbers_other_machines_and_old_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, before = temporary_path(tmp_path / "mine.png"), temporary_path(tmp_path / "before.png")
    monkeypatch.setattr(leftovers, "this_machine", lambda: "00000000")
    elsewhere, long_ago = temporary_path(tmp_path / "there.png"), temporary_path(tmp_path / "long-ago.png")
    monkeypatch.undo()
    folder, old = temporary_path(tmp_path / "pipeline"), tmp_path / ".zeroshift-0a1b2c3d-grid.png"
    for file in (mine, before, elsewhere, long_ago, old):
        file.touch()
    os.utime(before, (0, 0))  # when another process had our number
    os.utime(long_ago, (time.time() - 2 * 24 * 3600,) * 2)
    (folder / "unet").mkdir(parents=True)
    os.utime(folder, (0, 0))
    for name in (".zeroshift-lock", ".zeroshift-notes.txt", "grid.png"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    kept = {mine.name, elsewhere.name, ".zeroshift-lock", ".zeroshift-notes.txt", "grid.png"}
    assert set(names(tmp_path)) == kept


def test_a_folder_that_cannot_be_listed_is_no_error(tmp_path: Path) -> None:
    remove_leftovers(tmp_path / "missing")
