"""Trials in separate processes, in parts, and shared by several commands."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.executors import Here
from zeroshift.benchmark.executors import Shard, SharedWork, TrialJob, Work, parse_shard
from zeroshift.benchmark.processes import LocalPool, local_pool
from zeroshift.errors import ZeroshiftError
from zeroshift.io.claims import Claims


def write(folder: Path, trials: Sequence[int]) -> list[str | None]:
    """Appends to the file of each trial; number 13 fails."""
    for trial in trials:
        if trial != 13:
            with open(folder / f"{trial}.json", "a") as file:
                file.write("run\n")
    return ["bad luck" if trial == 13 else None for trial in trials]


def numbered_work(folder: Path, count: int, run: Any = write, **changes: Any) -> Work[int]:
    """Even and odd numbers are two groups."""

    def record(trial: int) -> Path:
        return folder / f"{trial}.json"

    trials = range(count)
    missing = [trial for trial in trials if not record(trial).exists()]
    return Work(
        TrialJob(partial(run, folder)), trials, missing, record, lambda trial: record(trial).exists(),
        lambda trial: trial % 2, **changes,
    )  # fmt: skip


def fail_or_die(folder: Path, trials: Sequence[int]) -> list[str | None]:
    """Number 0 is killed, number 1 fails, others write what they see."""
    for trial in trials:
        if trial == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if trial > 1:
            seen = f"{torch.get_num_threads()} {os.environ.get('CUDA_VISIBLE_DEVICES')}"
            (folder / f"{trial}.json").write_text(seen)
    return ["the disk is full" if trial == 1 else None for trial in trials]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_killed_pack_does_not_stop_the_others(tmp_path: Path) -> None:
    """Each has its number of threads, and its GPU."""
    job = TrialJob(partial(fail_or_die, tmp_path), preload=("zeroshift.benchmark.executors",))
    killed = "its process ended with exit code -9, possibly out of memory"
    problems = list(LocalPool(1, threads=2, gpus=1).run(job, [[3, 0, 4], [1, 2]]))
    assert problems == [(3, killed), (0, killed), (4, killed), (1, "the disk is full"), (2, None)]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"2.json": "2 0", "3.json": "2 0"}


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("3", [3, 3, 2, 1, 1]), ("3,1", [3, 3, 2, 1, 1]), ("0", [8, 4, 2, 1, 1]), ("", [8, 4, 2, 1, 1])],
)
def test_trials_have_no_more_threads_than_the_variable_says(
    monkeypatch: pytest.MonkeyPatch, limit: str, expected: list[int]
) -> None:
    """It is set, for example, on a machine that others use as well."""
    monkeypatch.setattr("zeroshift.benchmark.processes.cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert [local_pool(n, on_gpus=False)._threads for n in (1, 2, 4, 8, 16)] == expected
    assert local_pool(1, threads=5, on_gpus=False)._threads == 5


def test_trials_in_parallel_see_different_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [LocalPool(3, gpus=1)._devices(slot) for slot in range(3)] == ["0", "1", "2"]
    assert [LocalPool(4, gpus=0.5)._devices(slot) for slot in range(4)] == ["0", "0", "1", "1"]
    assert LocalPool(3)._devices(2) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-6,7")
    assert [LocalPool(2, gpus=2)._devices(slot) for slot in range(2)] == ["4,5", "GPU-6,7"]


def test_parts_cover_the_trials_once_and_then_help_others() -> None:
    trials = list(range(8))
    parts = [Shard(number, 3).order(trials) for number in (1, 2, 3)]
    assert parts[0] == [0, 3, 6, 7, 5, 4, 2, 1]
    assert sorted(parts[0][:3] + parts[1][:3] + parts[2][:2]) == trials
    assert all(sorted(part) == trials for part in parts)
    assert parse_shard("2/3") == Shard(2, 3)


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "1/", "a/b", "-1/2", ""])
def test_impossible_parts_are_refused(text: str) -> None:
    with pytest.raises(ZeroshiftError, match=r"it must be I/N with I from 1 to N, such as 1/8"):
        parse_shard(text)


def test_several_commands_run_each_trial_once(tmp_path: Path) -> None:
    ends: list[tuple[int, SharedWork[int]]] = []
    together = threading.Barrier(4)

    def command(number: int) -> None:
        with Claims(tmp_path) as claims:
            shared = SharedWork(numbered_work(tmp_path, 40), claims, Shard(number, 4))
            together.wait()
            ends.append((len(list(shared.run(Here()))), shared))

    threads = [threading.Thread(target=command, args=(number,)) for number in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done for done, _ in ends) == 40, "number 13 fails once"
    assert [(tmp_path / f"{trial}.json").read_text() for trial in range(40) if trial != 13] == ["run\n"] * 39
    knowing = [shared for _, shared in ends if not shared.elsewhere]
    assert knowing, "the one with the last trial knows that all have ended"
    assert all(list(shared.failed) == ["13"] for shared in knowing)
    assert all(shared.failed["13"].startswith("bad luck") for shared in knowing)
    assert [path.name for path in tmp_path.glob("*.claim-*")] == ["13.json.claim-0"]


def test_trials_of_others_are_left_to_them_while_they_work(tmp_path: Path) -> None:
    work = numbered_work(tmp_path, 3)
    with Claims(tmp_path) as theirs, Claims(tmp_path) as mine:
        assert theirs.take(work.record(1))
        shared = SharedWork(work, mine)
        assert list(shared.run(Here())) == [0, 2]
        assert list(shared.elsewhere) == ["1"]
        assert f"process {os.getpid()}" in shared.elsewhere["1"]
    with Claims(tmp_path) as later:
        assert list(SharedWork(numbered_work(tmp_path, 3), later).run(Here())) == [1]


def test_a_trial_that_others_release_meanwhile_is_run_last(tmp_path: Path) -> None:
    work = numbered_work(tmp_path, 3)
    with Claims(tmp_path) as theirs, Claims(tmp_path) as mine:
        assert theirs.take(work.record(0))
        done = []
        for trial in SharedWork(work, mine).run(Here()):
            done.append(trial)
            if trial == 1:  # as by Ctrl-C
                theirs.release(work.record(0))
        assert done == [1, 2, 0]


def test_a_finished_trial_is_no_longer_elsewhere_though_a_command_looks_at_it(tmp_path: Path) -> None:
    work = numbered_work(tmp_path, 2)
    with Claims(tmp_path) as theirs, Claims(tmp_path) as mine:
        assert theirs.take(work.record(0))
        shared = SharedWork(work, mine)
        for trial in shared.run(Here()):
            assert trial == 1
            write(tmp_path, [0])  # their claim is not released yet
        assert shared.elsewhere == {}


@pytest.mark.parametrize("end", ["finished", "stopped", "failed"])
def test_a_trial_that_others_end_during_the_last_round_is_not_elsewhere(tmp_path: Path, end: str) -> None:
    """Otherwise no command would know that all have ended, and none would write the page."""
    work = numbered_work(tmp_path, 3)
    with Claims(tmp_path) as theirs, Claims(tmp_path) as mine:
        assert theirs.take(work.record(0))
        assert theirs.take(work.record(1))
        shared = SharedWork(work, mine)
        done = []
        for trial in shared.run(Here()):
            done.append(trial)
            if trial == 2:
                theirs.release(work.record(1))  # stopped: the next round runs it here
            elif trial == 1:
                assert list(shared.elsewhere) == ["0"]
                if end == "finished":
                    write(tmp_path, [0])
                theirs.release(work.record(0), "the disk is full" if end == "failed" else None)
        assert done == ([2, 1, 0] if end == "stopped" else [2, 1])
        assert shared.elsewhere == {}
        assert list(shared.failed) == (["0"] if end == "failed" else [])


def test_results_that_are_not_in_the_folder_are_a_failure(tmp_path: Path) -> None:
    work = numbered_work(tmp_path, 1, run=lambda folder, trials: [None])
    with Claims(tmp_path) as claims:
        shared = SharedWork(work, claims)
        assert list(shared.run(Here())) == [0]
    assert shared.failed["0"] == f"its results are not in {tmp_path}: all machines must share this folder"


def test_finished_trials_run_again_on_demand(tmp_path: Path) -> None:
    for again, expected in ((False, "run\n"), (True, "run\nrun\n")):
        work = numbered_work(tmp_path, 1, again=again)
        changed = Work(**{**vars(work), "missing": [0]})  # as if another command had finished it since the check
        with Claims(tmp_path) as claims:
            list(SharedWork(changed, claims).run(Here()))
        assert (tmp_path / "0.json").read_text() == expected
        (tmp_path / "0.json").write_text("run\n")


def test_a_claim_that_a_killed_command_left_on_a_finished_trial_is_removed(tmp_path: Path) -> None:
    (tmp_path / "0.json").write_text("run\n")
    (tmp_path / "0.json.claim-0").write_text("{}")
    os.utime(tmp_path / "0.json.claim-0", (0, 0))
    with Claims(tmp_path) as claims:
        assert list(SharedWork(numbered_work(tmp_path, 1), claims).run(Here())) == []
    assert [path.name for path in tmp_path.iterdir()] == ["0.json"]


def test_packs_hold_trials_of_one_group_in_order(tmp_path: Path) -> None:
    work = numbered_work(tmp_path, 8)
    assert work.packs(range(8), 3) == [[0, 2, 4], [1, 3, 5], [6], [7]]
    assert work.packs([5, 2, 1], 2) == [[5, 1], [2]]
    assert work.packs(range(3), 1) == [[0], [1], [2]]


class Packs(Here):
    """Lists the packs, and loses the process of each after its first trial."""

    def run(self, job: TrialJob[Any], packs: Iterable[Sequence[Any]]) -> Iterator[tuple[Any, str | None]]:
        for pack in packs:
            self.done.append(list(pack))
            job.run(pack[:1])
            yield from ((trial, "its process ended") for trial in pack)


def test_trials_of_a_lost_pack_that_had_ended_are_kept(tmp_path: Path) -> None:
    executor = Packs()
    with Claims(tmp_path) as claims:
        shared = SharedWork(numbered_work(tmp_path, 6), claims, pack=2)
        assert sorted(shared.run(executor)) == list(range(6))
    assert executor.done == [[0, 2], [1, 3], [4], [5]]
    assert shared.failed == {"2": "its process ended", "3": "its process ended"}
    with Claims(tmp_path) as claims:
        again = SharedWork(numbered_work(tmp_path, 6), claims, pack=2)
        assert again.missing == [2, 3]
        list(again.run(executor))
    assert again.failed == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{trial}.json" for trial in range(6)]


def test_packs_leave_out_what_others_have_claimed(tmp_path: Path) -> None:
    work, executor = numbered_work(tmp_path, 8), Packs()
    with Claims(tmp_path) as theirs, Claims(tmp_path) as mine:
        assert theirs.take(work.record(2))
        shared = SharedWork(work, mine, Shard(1, 2), pack=3)
        list(shared.run(executor))
    assert executor.done == [[0, 4], [6], [7, 1, 3], [5]]
    assert list(shared.elsewhere) == ["2"]
