"""Heavy work of the studio: jobs, each a child process or a function that reports its progress."""

import contextlib
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from zeroshift.config.schema import require
from zeroshift.generators.trust import is_factory_name
from zeroshift.io.atomic import disk_errors
from zeroshift.report.command import command_line
from zeroshift.training.run_folder import RunFolder

__all__ = ["ENDED", "PROCESS_KINDS", "FunctionJob", "Job", "ProcessJob", "State", "StopJob"]

State = Literal["waiting", "running", "stopping", "done", "stopped", "failed"]
ENDED = ("done", "stopped", "failed")
PROCESS_KINDS = ("adapt", "evaluate")
_POLL = 0.2  # seconds between looks at a process that is no child of this one
_INTERRUPTED = (130, -signal.SIGTERM, -signal.SIGINT)  # exit codes after a signal
_LONGEST = 600  # characters of a message


class StopJob(Exception):
    """Raised in a function job that is to be stopped."""


@dataclass
class Job(ABC):
    """One piece of heavy work.

    Attributes:
        title: what is shown in the queue.
        kind: "adapt", "evaluate", "invert", ...
        place: folder that it writes; two jobs of one place are never in the queue together. Empty: none.
        state: see `State`.
        message: why it failed.
    """

    title: str
    kind: str
    place: str = ""
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    state: State = "waiting"
    message: str = ""
    changed: Callable[[], None] = field(default=lambda: None, repr=False)
    """Called when what `record` holds has changed during the work."""

    @abstractmethod
    def work(self) -> State:
        """Does the work, and returns how it ended. Called once, in a thread of the queue."""

    @abstractmethod
    def interrupt(self) -> None:
        """Asks the running work to end soon."""

    def release(self) -> None:  # noqa: B027
        """Called when it has ended: releases what only the work needs, while the job is still listed."""

    def close(self) -> None:
        """Called when the studio ends while the job runs: what goes on without it is left alone."""
        self.interrupt()


def _nothing(job: Job) -> None:
    """The work of a job that has ended."""


@dataclass
class FunctionJob(Job):
    """A function in this process.

    Attributes:
        function: called with the job; it calls `job.report` between steps.
        progress: (step, steps, what) of the last report.
        result: what the function returned.
    """

    function: Callable[["FunctionJob"], Any] = _nothing
    progress: tuple[int, int, str] = (0, 0, "")
    shown: Any = None
    result: Any = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def report(self, step: int, steps: int, what: str, shown: Any = None) -> None:
        """Notes the progress.

        Raises:
            StopJob: if the job is to stop.
        """
        if self._stop.is_set():
            raise StopJob
        self.progress = step, steps, what
        self.shown = self.shown if shown is None else shown

    def work(self) -> State:
        try:
            self.result = self.function(self)
        except StopJob:
            return "stopped"
        return "done"

    def interrupt(self) -> None:
        self._stop.set()

    def release(self) -> None:
        self.function, self.shown = _nothing, None


@dataclass
class ProcessJob(Job):
    """A command of zeroshift on a run, in a process of its own, which goes on if the studio is killed.

    What is run follows from `kind` and the run folder alone: a file of jobs cannot name commands.

    Attributes:
        log: file of its output.
        pid, started: the process; 0 before it starts.
    """

    log: Path = Path(os.devnull)
    pid: int = 0
    started: float = 0.0
    _child: "subprocess.Popen[bytes] | None" = None

    @property
    def arguments(self) -> list[str]:
        """Arguments of `zeroshift`.

        Raises:
            ZeroshiftError: if the run cannot be read, or its generator is a function of Python.
        """
        if self.kind == "adapt":
            config = RunFolder.read(self.place).config
            require(
                not is_factory_name(config.generator),
                f"The generator {config.generator} of this run is a Python function. The studio does not run it: use "
                "`zeroshift adapt`.",
            )
            return shlex.split(command_line(config, Path(self.place)))[1:]
        return [self.kind, self.place]

    def work(self) -> State:
        if not self.pid:
            self._start()
        code = self._wait()
        if code == 0:
            return "done"
        if code in _INTERRUPTED:
            return "stopped"
        self.message = self._error()
        return "failed"

    def interrupt(self) -> None:
        # SIGTERM does the same as Ctrl-C: a checkpoint, then the end. Ctrl-C is ignored by children of a process that a
        # shell started in the background.
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def is_alive(self) -> bool:
        """Whether its process runs, and is not another one with the same number."""
        import psutil

        if not self.pid:
            return False
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False

    def output(self, lines: int = 30) -> str:
        """The last lines of its output, as on a terminal."""
        try:
            with open(self.log, "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
        return "\n".join(line.rpartition("\r")[2] for line in text.splitlines()[-lines:])

    def record(self) -> dict[str, Any]:
        """What the queue writes down of the job."""
        kept = {name: getattr(self, name) for name in ("title", "kind", "id", "state", "message", "pid", "started")}
        return {**kept, "run": Path(self.place).name}

    @classmethod
    def from_record(
        cls, record: Mapping[str, Any], folder: Callable[[str], Path], log: Callable[[str], Path]
    ) -> "ProcessJob":
        """The job of a record.

        Args:
            folder, log: the folder of a run and the file of its output, by its name.

        Raises:
            ZeroshiftError: if the record is damaged.
        """
        kinds = {"title": str, "kind": str, "id": str, "state": str, "message": str, "pid": int, "started": float}
        fits = all(isinstance(record.get(name), kind) for name, kind in kinds.items())
        require(fits and record["kind"] in PROCESS_KINDS and record["state"] in get_args(State), "A job is damaged.")
        place = folder(record.get("run", ""))
        return cls(place=str(place), log=log(place.name), **{name: record[name] for name in kinds})

    def _start(self) -> None:
        import psutil

        arguments = self.arguments
        with disk_errors(self.log), open(self.log, "wb") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", __package__.partition(".")[0], *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
            )  # fmt: skip
        self.pid = self._child.pid
        with contextlib.suppress(psutil.Error):
            self.started = psutil.Process(self.pid).create_time()
        self.changed()

    def _wait(self) -> int:
        """The exit code. That of a process of an earlier studio is unknown: 0, its folder tells how it ended."""
        if self._child is not None:
            return self._child.wait()
        while self.is_alive():
            time.sleep(_POLL)
        return 0

    def _error(self) -> str:
        """The last error sentence of the output, or its last line."""
        lines = [line.strip() for line in self.output(200).splitlines() if line.strip()]
        errors = [line.removeprefix("Error:").strip() for line in lines if line.startswith("Error:")]
        return (errors or lines or ["The process ended without a message."])[-1][:_LONGEST]
