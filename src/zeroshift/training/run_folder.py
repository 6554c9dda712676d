"""A run folder: what a run is, what it measured, where it stands and what came out of it (docs/run-folder.md).

Every file in it is written whole or not at all, so that a killed run can be resumed by the same command.
"""

import contextlib
import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from zeroshift.config.settings import flat
from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import _TEMPORARY, append_record, atomic_write, disk_errors, read_records

if TYPE_CHECKING:
    import torch
    from torch.utils.tensorboard import SummaryWriter

    from zeroshift.config.settings import AdaptConfig

__all__ = ["STAGES", "RunFolder"]

STAGES = ("prompts", "adapt")  # in the order in which they run
_LOCK = f"{_TEMPORARY}lock"


class RunFolder:
    """One run on disk. `RunFolder.open` makes or resumes one for training, `RunFolder.read` opens one to look at it.

    path/config.json            the resolved settings
    path/metrics.jsonl          one line per stage and step
    path/events/STAGE/          the same for TensorBoard
    path/previews/              pictures on the way
    path/checkpoints/last.pt    where training stands
    path/generator.safetensors  the adapted generator, written last; of fewer steps while a finished run is extended
    path/pairs.png, report.html what came out, to look at
    path/metrics-MEASURE.jsonl  what `zeroshift evaluate` measured, one line a time
    """

    def __init__(self, path: str | Path, config: "AdaptConfig") -> None:
        self.path = Path(path)
        self.config = config
        self._writers: dict[str, SummaryWriter] = {}
        self._made_folder = False

    @classmethod
    def open(cls, path: str | Path, config: "AdaptConfig") -> "RunFolder":
        """A new run in a new or empty folder, or the run that is there, to be resumed.

        More `adapt.steps` than before extend a run, from `begin` on; no other context may differ.

        Raises:
            ZeroshiftError: if the folder holds something else or a run with other settings, is in use or cannot be
            written.
        """
        run = cls(path, config)
        there = cls.read(path).config if run._config_path.exists() else None
        if there is not None:
            _check_same(run.path, there, config)
            if there != config and run.generator_path.exists() and not run.checkpoint_path.exists():
                raise ZeroshiftError(
                    f"The run in {path} has no checkpoint any more from which it could be extended. "
                    "Give another folder (--out)."
                )
        elif run.path.exists():
            _check_empty(run.path)
        with disk_errors(run.path):
            run._made_folder = not run.path.exists()
            run.path.mkdir(parents=True, exist_ok=True)
        with run.alone():
            if there is None:
                run.begin()
        return run

    def begin(self) -> None:
        """Says in the folder what the settings are: all that training needs is there.

        A finished run keeps its generator and its settings until then, and the generator until there is a new one.
        """
        if not self._config_path.exists() or self.read(self.path).config != self.config:
            with atomic_write(self._config_path) as temporary:
                temporary.write_text(self.config.to_json(), encoding="utf-8")

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Within, no other process trains in this folder; what a killed one left half-written is removed.

        Raises:
            ZeroshiftError: if another one does.
        """
        with disk_errors(self.path):
            lock = FileLock(self.path / _LOCK, thread_local=False)
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise ZeroshiftError(
                    f"Another process is training in {self.path}. Wait until it ends, or give another folder (--out)."
                ) from error
            try:
                for leftover in self.path.rglob(f"{_TEMPORARY}*"):
                    if leftover.name != _LOCK and leftover.is_file():
                        leftover.unlink(missing_ok=True)
                yield
            finally:
                (self.path / _LOCK).unlink(missing_ok=True)  # while it is held: nobody waits for it
                lock.release()

    @classmethod
    def read(cls, path: str | Path) -> "RunFolder":
        """The run in `path`, finished or not; nothing is written.

        Raises:
            ZeroshiftError: if there is no run, or its config.json cannot be understood.
        """
        from zeroshift.config.settings import AdaptConfig

        file = Path(path) / "config.json"
        if not file.is_file():
            raise ZeroshiftError(
                f"{path} is not a run folder: it has no config.json. `zeroshift adapt --out FOLDER` makes one."
            )
        try:
            return cls(path, AdaptConfig.from_json(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError, KeyError, ZeroshiftError) as error:
            raise ZeroshiftError(f"{file} cannot be read as the settings of a run ({error}).") from error

    @property
    def _config_path(self) -> Path:
        return self.path / "config.json"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoint_path(self) -> Path:
        return self.path / "checkpoints" / "last.pt"

    @property
    def generator_path(self) -> Path:
        return self.path / "generator.safetensors"

    @property
    def pairs_path(self) -> Path:
        return self.path / "pairs.png"

    @property
    def report_path(self) -> Path:
        return self.path / "report.html"

    @property
    def delivered_steps(self) -> int | None:
        """How many steps of adaptation the delivered generator has seen, 0 if it does not say; None: there is none."""
        if not self.generator_path.exists():
            return None
        try:
            with safe_open(self.generator_path, framework="numpy") as file:
                told = json.loads((file.metadata() or {}).get("zeroshift", "{}"))
        except (SafetensorError, OSError, ValueError) as error:
            raise ZeroshiftError(f"The generator {self.generator_path} is damaged ({error}).") from error
        return int(told.get("steps", 0))

    @property
    def finished(self) -> bool:
        """Whether the adapted generator has been delivered under just these settings."""
        return self.delivered_steps == self.config.adapt.steps and self.read(self.path).config == self.config

    def require_generator(self) -> None:
        """Raises ZeroshiftError unless an adapted generator has been delivered."""
        if not self.generator_path.exists():
            raise ZeroshiftError(
                f"The run in {self.path} is not finished: repeat its `zeroshift adapt` command to resume it."
            )

    def discard_if_unused(self) -> None:
        """Takes back a run that has come to nothing (its checkpoint was not found, say): no shell of it stays."""
        if [entry.name for entry in self.path.iterdir()] == ["config.json"]:
            self._config_path.unlink()
            if self._made_folder:
                self.path.rmdir()

    def log(self, stage: str, step: int, **values: Any) -> None:
        """Appends {"stage", "step", **values} to metrics.jsonl; numbers among the values go to TensorBoard as well."""
        append_record(self.metrics_path, {"stage": _known(stage), "step": step, **values})
        self._add_scalars(stage, step, values)

    def records(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl, see `read_records`."""
        return read_records(self.metrics_path)

    def rewind(self, stage: str, step: int) -> None:
        """Forgets what was logged at or past (stage, step), for a resume from a checkpoint taken there."""
        here = (STAGES.index(_known(stage)), step)
        kept = [record for record in self.records() if (STAGES.index(record["stage"]), record["step"]) < here]
        with atomic_write(self.metrics_path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        self.close()
        with disk_errors(self.path):
            shutil.rmtree(self.path / "events", ignore_errors=True)
        for record in kept:
            values = {key: value for key, value in record.items() if key not in ("stage", "step")}
            self._add_scalars(record["stage"], record["step"], values)

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replaces the last checkpoint by `state`: tensors, numbers, strings, lists and dicts only."""
        import torch

        with atomic_write(self.checkpoint_path) as temporary, open(temporary, "wb") as file:
            torch.save(state, file)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint on the CPU, or None if there is none.

        Raises:
            ZeroshiftError: if the file is damaged or holds more than plain data.
        """
        import torch

        if not self.checkpoint_path.exists():
            return None
        try:
            return torch.load(self.checkpoint_path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise ZeroshiftError(
                f"The checkpoint {self.checkpoint_path} is damaged. Delete it to start this run from its beginning."
            ) from error

    def save_image(self, name: str, images: "torch.Tensor", columns: int) -> Path:
        """Writes images [N, C, H, W] in [-1, 1] as a grid to previews/NAME.png."""
        from zeroshift.io.images import make_grid, save_png

        return save_png(self.path / "previews" / f"{name}.png", make_grid(images, columns))

    def close(self) -> None:
        """Flushes and closes the TensorBoard files; a later `log` opens new ones."""
        with disk_errors(self.path / "events"):
            for writer in self._writers.values():
                writer.close()
            self._writers.clear()

    def _add_scalars(self, stage: str, step: int, values: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        with disk_errors(self.path / "events"):
            if stage not in self._writers:
                self._writers[stage] = SummaryWriter(str(self.path / "events" / stage))
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._writers[stage].add_scalar(name, value, step)


def _known(stage: str) -> str:
    if stage not in STAGES:
        raise ValueError(f"unknown stage {stage!r}, expected one of {STAGES}")
    return stage


def _check_empty(path: Path) -> None:
    if not path.is_dir():
        raise ZeroshiftError(f"{path} is a file. Give the run a new or empty folder (--out).")
    foreign = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith(_TEMPORARY))
    if foreign:
        listed = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
        raise ZeroshiftError(
            f"{path} is not a run folder but holds files ({listed}). Give a new or empty folder (--out)."
        )


def _check_same(path: Path, there: "AdaptConfig", now: "AdaptConfig") -> None:
    old, new = flat(there), flat(now)
    differing = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    if differing == ["adapt.steps"] and new["adapt.steps"] > old["adapt.steps"]:
        return
    if differing:
        listed = ", ".join(f"{key} ({old.get(key)} there, {new.get(key)} now)" for key in differing)
        raise ZeroshiftError(
            f"The run in {path} was started with other settings: {listed}. Repeat its settings to resume it, "
            f"or give another folder (--out)."
        )
