"""The studio: its folders, models, queue and sessions, and what the tabs do with them."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zeroshift.api.checks import label_warnings
from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.evaluation.compare import YARDSTICK, compare, headings, yardsticks
from zeroshift.evaluation.evaluate import read_results
from zeroshift.io.atomic import disk_errors
from zeroshift.io.leftovers import TEMPORARY_PREFIX
from zeroshift.io.locks import locked_folder
from zeroshift.studio.engine.cache import ModelCache
from zeroshift.studio.engine.explorer import Explorer
from zeroshift.studio.engine.form import config_from_form
from zeroshift.studio.engine.jobs import ENDED, Job, ProcessJob
from zeroshift.studio.engine.photos import StudioPhotos
from zeroshift.studio.engine.progress import Watcher
from zeroshift.studio.engine.queue import JobQueue
from zeroshift.studio.engine.served import ServedFiles
from zeroshift.studio.engine.sessions import Sessions
from zeroshift.studio.engine.workspace import Workspace
from zeroshift.training.default_folder import default_folder
from zeroshift.training.resume_checks import same_results
from zeroshift.training.run_folder import RunFolder

__all__ = ["Studio", "Table", "opened_studio"]

_PREFIX = "zeroshift-studio-"
_STATE = f"{TEMPORARY_PREFIX}studio"  # folder in the runs folder: jobs and the output of their processes


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        note: what the signs in it mean.
    """

    head: list[str]
    rows: list[list[str]]
    note: str


class Studio:
    """Everything behind the pages.

    Args:
        workspace: the folders.
        state: folder of the queue.
        private: folder of everything that visitors send and see; it is removed afterwards.

    Attributes:
        temporary: the folder of uploads and of pictures that are sent.
    """

    def __init__(self, workspace: Workspace, state: Path, private: Path):
        self.workspace, self.temporary, self._state = workspace, private / "pages", state
        self.temporary.mkdir(parents=True, exist_ok=True)
        models = ModelCache()
        self.sessions, self.watcher, self.files = Sessions(), Watcher(), ServedFiles(self.temporary / "shown")
        self.queue = JobQueue(state / "jobs.json", self._restored)
        self.explorer = Explorer(workspace, models)
        self.photos = StudioPhotos(workspace, models, self.queue, self.temporary, private / "inversions")

    def _restored(self, record: Mapping[str, Any]) -> ProcessJob:
        return ProcessJob.from_record(record, self.workspace.folder, self._log)

    def _log(self, name: str) -> Path:
        return self._state / f"{name}.log"

    def sweep(self, age: float) -> None:
        """Removes uploads and pictures of pages that are older than `age` seconds."""
        oldest = time.time() - age
        for file in self.temporary.rglob("*"):
            with contextlib.suppress(OSError):  # it is in use or gone, or a folder with files
                if file.lstat().st_mtime < oldest:
                    file.rmdir() if file.is_dir() else file.unlink()

    def configure(
        self, generator: str, method: str, source: str, target: str, values: Mapping[str, Any]
    ) -> AdaptConfig:
        """The checked settings of the form, see `config_from_form`."""
        return config_from_form(self.workspace, generator, method, source, target, values)

    def check(self, config: AdaptConfig) -> list[str]:
        """What speaks against a run before it starts: unknown words, labels that are close. Loads the encoders.

        Raises:
            ZeroshiftError: if the encoder does not tell the labels apart.
        """
        return label_warnings(config)

    def run_name(self, config: AdaptConfig) -> str:
        """A free name for a run, or the name of the run that has these settings and is to be resumed."""
        plain = default_folder(config).name
        number = 1
        while True:
            name = plain if number == 1 else f"{plain}-{number}"
            folder = self.workspace.folder(name)
            if not folder.exists() or self._fits(folder, config):
                return name
            number += 1

    def _fits(self, folder: Path, config: AdaptConfig) -> bool:
        with contextlib.suppress(ZeroshiftError):
            return same_results(RunFolder.read(folder).config, config)
        return False

    def start(self, config: AdaptConfig, name: str = "") -> Job:
        """Adds an adaptation to the queue. A folder of a run with these settings is resumed.

        Raises:
            ZeroshiftError: a name that is no name, a folder with another run or in the queue, or a full queue.
        """
        name = name.strip() or self.run_name(config)
        folder = self.workspace.folder(name)
        job = self._job("adapt", name, f"{config.source} → {config.target}")
        self._require_free(job)
        run = RunFolder.open(folder, config)
        if run.finished:
            raise ZeroshiftError(f"The run {name} is already finished. Choose another seed or other settings.")
        with run.lock():
            run.write_config()  # an extended run: the process reads the settings there
        return self.queue.add(job)

    def resume(self, name: str) -> Job:
        """Adds the rest of a run to the queue.

        Raises:
            ZeroshiftError: if it is finished, or in the queue.
        """
        run = self.workspace.run(name)
        if run.finished:
            raise ZeroshiftError(f"The run {name} is finished.")
        return self.queue.add(self._job("adapt", name, f"{run.config.source} → {run.config.target}"))

    def measure(self, names: Sequence[str]) -> list[Job]:
        """Adds the measures of finished runs (`zeroshift evaluate`) to the queue.

        Raises:
            ZeroshiftError: if a run is not finished or in the queue.
        """
        runs = self.workspace.finished(names)
        if not runs:
            raise ZeroshiftError("Choose one or more runs.")
        return [
            self.queue.add(self._job("evaluate", run.path.name, f"Measures of {run.config.target}")) for run in runs
        ]

    def _job(self, kind: str, name: str, title: str) -> ProcessJob:
        return ProcessJob(title, kind, str(self.workspace.folder(name)), log=self._log(name))

    def _require_free(self, job: ProcessJob) -> None:
        """Raises ZeroshiftError if the place of a job is in the queue, before anything is written there."""
        if any(one.place == job.place for one in self.queue.waiting):
            raise ZeroshiftError(f"{Path(job.place).name} is in the queue already. Wait until it ends, or stop it.")

    def state(self, name: str) -> str:
        """The state of a run in one word: waiting, running, stopping, finished, stopped or failed."""
        job = self.queue.latest(str(self.workspace.folder(name)))
        if job is not None and job.state not in ENDED and job.kind == "adapt":
            return job.state
        run = self.workspace.run(name)
        if run.finished:
            return "finished"
        return "failed" if job is not None and job.state == "failed" else "stopped"

    def measures(self, names: Sequence[str]) -> Table:
        """The results of `zeroshift evaluate` of finished runs: a column for each run, then source and truth.

        Measures are rows, so that the table fits a narrow page.
        """
        runs = self.workspace.finished(names)
        columns, rows = compare((run, read_results(run)) for run in runs)
        if not columns:
            return Table([], [], "")
        others = yardsticks(columns, rows)
        targets = {str(run.path): run.config.target for run in runs}
        found = [{targets.get(run, "") for run in row.runs} for row in rows]
        plain = all(map(len, found)) and len(set().union(*found)) == len(rows)
        labels = ["".join(one) if plain else row.label for one, row in zip(found, rows, strict=True)]
        head = ["measure", *labels, *(label for label, _ in others)]
        lines = [
            [text, *(row.cell(column) for row in rows), *(cells[number] for _, cells in others)]
            for number, (text, column) in enumerate(zip(headings(columns), columns, strict=True))
        ]
        return Table(
            head, lines, f"{YARDSTICK} Where truth is worse than the source, as diversity may be, aim at truth."
        )


@contextlib.contextmanager
def opened_studio(runs: Path, models: Sequence[Path] = ()) -> Iterator[Studio]:
    """A studio on a folder of runs. At the end, the running job is stopped after a checkpoint.

    Raises:
        ZeroshiftError: if another studio uses the folder, or it cannot be written.
    """
    workspace = Workspace(runs, models)
    state = runs / _STATE
    with disk_errors(state):
        state.mkdir(parents=True, exist_ok=True)
    lock = locked_folder(state, "showing a studio of the runs", option="--runs")
    with lock, _private_folder(state / "temporary") as private:
        studio = Studio(workspace, state, private)
        try:
            yield studio
        finally:
            studio.queue.close()


@contextlib.contextmanager
def _private_folder(record: Path) -> Iterator[Path]:
    """A temporary folder that only this user can read. That of a studio that was killed is removed first.

    Args:
        record: a file that keeps its name.
    """
    parent = Path(tempfile.gettempdir())
    with contextlib.suppress(OSError, ValueError):  # there is none, or it is damaged
        left = record.read_text(encoding="utf-8")
        if left.startswith(_PREFIX) and Path(left).name == left:
            shutil.rmtree(parent / left, ignore_errors=True)
    private = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with disk_errors(record):
            record.write_text(private.name, encoding="utf-8")
        yield private
    finally:
        shutil.rmtree(private, ignore_errors=True)
        record.unlink(missing_ok=True)
