"""The queue of heavy jobs: one at a time, visible, and kept on disk."""

import contextlib
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zeroshift.config.schema import require
from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import atomic_write
from zeroshift.io.foreign import first_line, read_json
from zeroshift.studio.engine.jobs import ENDED, Job, ProcessJob, State

__all__ = ["JobQueue"]

_KEPT = 50  # ended jobs
_CLOSING = 60.0  # seconds for a last checkpoint when the studio ends


class JobQueue:
    """Runs jobs one after another in a thread. Jobs with processes survive a restart of the studio.

    Args:
        file: where jobs are kept.
        restore: makes a job of a record in the file.
        most: the largest number of jobs that wait.
    """

    def __init__(self, file: Path, restore: Callable[[Mapping[str, Any]], ProcessJob], most: int = 32):
        self._file, self._restore, self._most = file, restore, most
        self._changed = threading.Condition()
        self._closing = False
        self._jobs = self._read()
        self._thread = threading.Thread(target=self._run, name="studio-queue", daemon=True)
        self._thread.start()

    @property
    def jobs(self) -> list[Job]:
        """All jobs, in the order in which they came."""
        with self._changed:
            return list(self._jobs)

    @property
    def waiting(self) -> list[Job]:
        """Jobs that have not ended: the running one first."""
        return [job for job in self.jobs if job.state not in ENDED]

    def add(self, job: Job) -> Job:
        """Appends a job.

        Raises:
            ZeroshiftError: if the queue is full, or a job that has not ended writes the same place.
        """
        with self._changed:
            open_jobs = [one for one in self._jobs if one.state not in ENDED]
            if job.place and any(one.place == job.place for one in open_jobs):
                raise ZeroshiftError(f"{Path(job.place).name} is in the queue already. Wait until it ends, or stop it.")
            if len(open_jobs) >= self._most:
                raise ZeroshiftError(f"{self._most} jobs are waiting already. Wait until one of them has ended.")
            self._jobs.append(job)
            self._write()
            self._changed.notify_all()
        return job

    def latest(self, place: str) -> Job | None:
        """The last job of a place."""
        return next((job for job in reversed(self.jobs) if job.place == place), None)

    def stop(self, job: Job) -> None:
        """Stops a job: a waiting one at once, a running one soon (a run after a checkpoint)."""
        with self._changed:
            if job.state == "waiting":
                self._end(job, "stopped")
            elif job.state == "running":
                job.state = "stopping"
                job.interrupt()
                self._write()

    def wait(self, job: Job, timeout: float | None = None) -> bool:
        """Waits until a job has ended; returns whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: job.state in ENDED, timeout)

    def close(self) -> None:
        """Ends the queue: the running job is stopped after a checkpoint; waiting ones stay on disk."""
        with self._changed:
            self._closing = True
            for job in self._jobs:
                if job.state in ("running", "stopping"):
                    job.close()
            self._changed.notify_all()
        self._thread.join(_CLOSING)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._next() is not None)
                job = self._next()
                if self._closing or job is None:
                    return
                job.state, job.changed = "running", self._save
                self._write()
            self._work(job)

    def _next(self) -> Job | None:
        """The job to run: one that an earlier studio has started, or else the first that waits."""
        for state in ("running", "stopping", "waiting"):
            for job in self._jobs:
                if job.state == state:
                    return job
        return None

    def _work(self, job: Job) -> None:
        """Runs a job to its end. Whatever it raises, the queue goes on."""
        state: State = "failed"
        try:
            state = job.work()
        except ZeroshiftError as error:
            job.message = str(error)
        except Exception as error:  # a fault of ours: the queue must go on
            job.message = f"This failed for a reason that was not expected ({first_line(error)})."
        with self._changed:
            self._end(job, state)

    def _end(self, job: Job, state: State) -> None:
        job.state = state
        job.release()
        ended = [one for one in self._jobs if one.state in ENDED]
        for old in ended[:-_KEPT]:
            self._jobs.remove(old)
        self._write()
        self._changed.notify_all()

    def _save(self) -> None:
        with self._changed:
            self._write()

    def _write(self) -> None:
        """Keeps the jobs with processes. A full disk must not end the queue."""
        records = [job.record() for job in self._jobs if isinstance(job, ProcessJob)]
        with contextlib.suppress(ZeroshiftError), atomic_write(self._file) as temporary:
            temporary.write_text(json.dumps(records, indent=1), encoding="utf-8")

    def _read(self) -> list[Job]:
        """The jobs of an earlier studio. One whose process has ended meanwhile counts as stopped."""
        jobs: list[Job] = []
        if not self._file.exists():
            return jobs
        with contextlib.suppress(ZeroshiftError):
            records = read_json(self._file)
            for record in records if isinstance(records, list) else []:
                with contextlib.suppress(ZeroshiftError):
                    require(isinstance(record, Mapping), "A job is damaged.")
                    job = self._restore(record)
                    if job.state in ("running", "stopping") and not job.is_alive():
                        job.state = "stopped"
                    jobs.append(job)
        return jobs
