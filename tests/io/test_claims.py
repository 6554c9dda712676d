"""Claims on shared folders: one process works on a thing at a time, and those of lost processes are taken over."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from zeroshift.io import claims as module
from zeroshift.io.claims import Claims


def elsewhere(file: Path, age: float = 0) -> None:
    """Makes a claim that of another machine, with its last heartbeat some seconds ago."""
    values = json.loads(file.read_text()) if file.stat().st_size else {}
    file.write_text(json.dumps({**values, "machine": "another", "host": "node7"}))
    os.utime(file, (time.time() - age,) * 2)


def test_a_claim_excludes_others_until_it_is_released(tmp_path: Path) -> None:
    work = tmp_path / "target" / "seed0.json"
    with Claims(tmp_path) as mine, Claims(tmp_path) as other:
        assert mine.last(work) is None
        assert mine.take(work)
        assert not other.take(work)
        last = other.last(work)
        assert last is not None
        assert last.alive
        assert last.holder.endswith(f", process {os.getpid()}")
        mine.release(work)
        assert other.take(work)
    assert list(work.parent.iterdir()) == [], "the end of the context releases"


@pytest.mark.parametrize("last", ["none", "dead"])
def test_exactly_one_of_many_claims_a_piece_of_work(tmp_path: Path, last: str) -> None:
    """Also when they all take over the claim of a dead process."""
    works = [tmp_path / str(number) for number in range(20)]
    if last == "dead":
        for work in works:
            work.with_name(f"{work.name}.claim-0").touch()
            elsewhere(work.with_name(f"{work.name}.claim-0"), age=1000)
    taken: list[Path] = []

    def take_all(claims: Claims) -> None:
        taken.extend(work for work in works if claims.take(work))

    threads = [threading.Thread(target=take_all, args=(Claims(tmp_path),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(works)


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_the_claim_of_a_killed_process_of_this_machine_is_taken_over_at_once(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, signal, sys; from zeroshift.io.claims import Claims; folder = pathlib.Path(sys.argv[1]);"
        "assert Claims(folder).take(folder / 'work'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)]).returncode == -signal.SIGKILL
    assert (tmp_path / "work.claim-0").exists()
    with Claims(tmp_path) as claims:
        assert claims.take(tmp_path / "work")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["work.claim-0", "work.claim-1"]
    assert list(tmp_path.iterdir()) == []


def test_a_claim_of_another_machine_lives_as_long_as_its_heartbeat(tmp_path: Path) -> None:
    work, file = tmp_path / "work", tmp_path / "work.claim-0"
    with Claims(tmp_path, heartbeat=0.02) as theirs, Claims(tmp_path) as mine:
        assert theirs.take(work)
        elsewhere(file, age=1000)
        deadline = time.monotonic() + 20
        while time.time() - file.stat().st_mtime > 100:
            assert time.monotonic() < deadline, "the heartbeat touches the file"
            time.sleep(0.02)
        assert not mine.take(work)
        last = mine.last(work)
        assert last is not None
        assert last.holder.startswith("node7, process ")
    file.touch()
    elsewhere(file, age=179)
    with Claims(tmp_path) as mine:
        assert not mine.take(work)
        elsewhere(file, age=182)
        assert mine.take(work)


def test_a_process_that_lost_its_claim_leaves_that_of_the_new_holder(tmp_path: Path) -> None:
    work = tmp_path / "work"
    with Claims(tmp_path, heartbeat=1000) as stopped, Claims(tmp_path) as other:
        assert stopped.take(work)
        elsewhere(tmp_path / "work.claim-0", age=1000)
        assert other.take(work)
        stopped.release(work)
        assert [path.name for path in tmp_path.iterdir()] == ["work.claim-1"]


def test_a_failure_blocks_those_that_began_before_it(tmp_path: Path) -> None:
    work = tmp_path / "work"
    with Claims(tmp_path) as mine, Claims(tmp_path) as other:
        assert mine.take(work)
        time.sleep(0.02)
        mine.release(work, "the disk is full")
        assert not other.take(work)
        last = other.last(work)
        assert last is not None
        assert (last.alive, last.problem) == (False, "the disk is full")
    os.utime(tmp_path / "work.claim-0", (time.time() - 5,) * 2)
    with Claims(tmp_path) as later:
        assert later.take(work)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", "[" * 9000, "\0\xff", '{"machine": [], "process": "x"}'])
def test_damaged_claims_are_those_of_unknown_machines(tmp_path: Path, text: str) -> None:
    file = tmp_path / "work.claim-0"
    file.write_text(text)
    (tmp_path / "work.claim-x").touch()
    with Claims(tmp_path) as claims:
        assert not claims.take(tmp_path / "work")
        os.utime(file, (time.time() - 1000,) * 2)
        assert claims.take(tmp_path / "work")


def test_two_machines_with_one_name_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    here = module._machine()
    monkeypatch.setattr(module, "this_machine", lambda: "00000000")
    module._machine.cache_clear()
    assert module._machine() != here
    module._machine.cache_clear()
