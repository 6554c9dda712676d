"""The queue: one job at a time, in order, never two in one place; it survives faults and restarts."""

import json
import threading
import time
from pathlib import Path

import pytest

from zeroshift.errors import ZeroshiftError
from zeroshift.studio.engine.jobs import FunctionJob, ProcessJob
from zeroshift.studio.engine.queue import JobQueue
from zeroshift.studio.engine.workspace import Workspace


def opened(folder: Path, most: int = 32) -> JobQueue:
    workspace = Workspace(folder)

    def restored(record: object) -> ProcessJob:
        return ProcessJob.from_record(record, workspace.folder, lambda name: folder / f"{name}.log")  # type: ignore[arg-type]

    return JobQueue(folder / "jobs.json", restored, most)


def function_job(function: object, title: str = "work", place: str = "") -> FunctionJob:
    return FunctionJob(title, "invert", place, function=function)  # type: ignore[arg-type]


def test_jobs_run_one_at_a_time_in_order(tmp_path: Path) -> None:
    queue, running, log = opened(tmp_path), threading.Semaphore(1), []

    def work(number: int) -> None:
        assert running.acquire(blocking=False), "another job is running"
        time.sleep(0.02)
        log.append(number)
        running.release()

    jobs = [queue.add(function_job(lambda job, number=number: work(number))) for number in range(4)]
    assert all(queue.wait(job, 10) for job in jobs)
    assert log == [0, 1, 2, 3]
    assert [job.state for job in jobs] == ["done"] * 4
    queue.close()


def test_two_jobs_never_share_a_place(tmp_path: Path) -> None:
    queue, gate = opened(tmp_path), threading.Event()
    first = queue.add(function_job(lambda job: gate.wait(10), place="runs/x"))
    with pytest.raises(ZeroshiftError, match="x is in the queue already"):
        queue.add(function_job(lambda job: None, place="runs/x"))
    gate.set()
    queue.wait(first, 10)
    queue.wait(queue.add(function_job(lambda job: None, place="runs/x")), 10)
    queue.close()


def test_a_full_queue_says_so(tmp_path: Path) -> None:
    queue, gate = opened(tmp_path, most=2), threading.Event()
    for _ in range(2):
        queue.add(function_job(lambda job: gate.wait(10)))
    with pytest.raises(ZeroshiftError, match="2 jobs are waiting already"):
        queue.add(function_job(lambda job: None))
    gate.set()
    queue.close()


def test_a_fault_in_a_job_is_a_message_and_the_queue_goes_on(tmp_path: Path) -> None:
    queue = opened(tmp_path)

    def broken(job: FunctionJob) -> None:
        raise ValueError("inner fault")

    def refused(job: FunctionJob) -> None:
        raise ZeroshiftError("The photo is too small.")

    jobs = [queue.add(function_job(one)) for one in (broken, refused, lambda job: 7)]
    assert all(queue.wait(job, 10) for job in jobs)
    assert [job.state for job in jobs] == ["failed", "failed", "done"]
    assert "not expected" in jobs[0].message
    assert jobs[1].message == "The photo is too small."
    assert jobs[2].result == 7  # type: ignore[attr-defined]
    queue.close()


def test_waiting_and_running_jobs_can_be_stopped(tmp_path: Path) -> None:
    queue, began = opened(tmp_path), threading.Event()

    def endless(job: FunctionJob) -> None:
        while True:
            began.set()
            job.report(1, 2, "working")
            time.sleep(0.01)

    running, waiting = queue.add(function_job(endless)), queue.add(function_job(endless))
    assert began.wait(10)
    queue.stop(waiting)
    assert waiting.state == "stopped"
    queue.stop(running)
    assert queue.wait(running, 10)
    assert running.state == "stopped"
    queue.close()


def record(**changes: object) -> dict[str, object]:
    """What jobs.json holds of a job of a run."""
    kept = {"title": "t", "kind": "adapt", "id": "a", "state": "done", "message": "", "pid": 0, "started": 0.0}
    return {**kept, "run": "zombie", **changes}


def test_a_job_whose_process_has_ended_is_stopped_after_a_restart(tmp_path: Path) -> None:
    (tmp_path / "jobs.json").write_text(json.dumps([record(state="running", pid=2**22 - 1, started=1.0)]))
    queue = opened(tmp_path)
    assert [job.state for job in queue.jobs] == ["stopped"]
    queue.close()


@pytest.mark.parametrize(
    "hostile",
    [
        "no list", 7, [7], [record(run="../outside")], [record(kind="-c")], [record(state="running", pid="1")],
        [record(arguments=["adapt"], run=3)], [{}],
    ],
)  # fmt: skip
def test_records_of_others_start_nothing(tmp_path: Path, hostile: object) -> None:
    (tmp_path / "jobs.json").write_text(json.dumps(hostile))
    queue = opened(tmp_path)
    assert queue.jobs == []
    queue.close()


def test_a_run_of_a_python_function_is_not_started(tmp_path: Path) -> None:
    """A run folder from a stranger could name one; on the command line the user names it."""
    (tmp_path / "zombie").mkdir()
    config = {"target": "zombie", "generator": "evil.module:load", "method": "nada"}
    (tmp_path / "zombie" / "config.json").write_text(json.dumps(config))
    (tmp_path / "jobs.json").write_text(json.dumps([record(state="waiting")]))
    queue = opened(tmp_path)
    (job,) = queue.jobs
    assert queue.wait(job, 20)
    assert job.state == "failed"
    assert "evil.module:load of this run is a Python function" in job.message
    queue.close()


def test_process_numbers_of_other_programs_are_left_alone() -> None:
    import os

    job = ProcessJob("t", "adapt", "runs/x", pid=os.getpid(), started=1.0)
    assert not job.is_alive()
    job.interrupt()  # would end this process
