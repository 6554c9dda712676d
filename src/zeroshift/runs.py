"""A run folder: what a run is, what it measured, where it stands and what came out of it (docs/run-folder.md).

Every file in it is written whole or not at all, so that a killed run can be resumed by the same command.
"""

import contextlib
import errno
import json
import os
import pickle
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from .errors import ZeroshiftError

if TYPE_CHECKING:
    from io import FileIO

    import torch
    from torch.utils.tensorboard import SummaryWriter

    from .config import AdaptConfig

__all__ = ["STAGES", "RunFolder", "append_record", "atomic_write", "disk_errors", "flat", "open_to_all", "read_records"]

STAGES = ("prompts", "adapt")  # in the order in which they run
_TEMPORARY = ".zeroshift-"
_LOCK = f"{_TEMPORARY}lock"
os.umask(_UMASK := os.umask(0))  # to read it is to set it
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_MISPLACED = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
_IN_WORDS = re.compile(r"os error (\d+)")  # so safetensors reports what the system told it


def _os_error(error: BaseException | None) -> OSError | None:
    """The OSError behind an exception: libraries often wrap it in one of their own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


@contextlib.contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turns a full disk, a missing right or a wrong kind of path met while writing `path` into a ZeroshiftError."""
    try:
        yield
    except ZeroshiftError:
        raise
    except Exception as error:
        cause, words = _os_error(error), _IN_WORDS.search(str(error))
        code = cause.errno if cause else int(words[1]) if words else None
        if code in _FULL:
            raise ZeroshiftError(
                f"The disk is full: {path} could not be written. Free some space, then try again."
            ) from error
        if code in _DENIED:
            raise ZeroshiftError(
                f"No right to write {path}. Choose another folder, or change its permissions."
            ) from error
        if code in _MISPLACED:
            raise ZeroshiftError(
                f"Cannot write {path}: a file stands where a folder is needed, or the reverse."
            ) from error
        raise


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to; at the end it is synced and takes the place of `path`.

    If the body fails, the temporary file is removed and whatever stood at `path` is left as it was. The temporary name
    keeps the suffix of `path`. Missing parent folders are made.

    Raises:
        ZeroshiftError: if the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(4)}-{path.name}")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()  # a right that is missing is told here, not in the words of whoever writes
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            open_to_all(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def open_to_all(file: Path) -> None:
    """Gives a file the rights of any new one: some libraries make files that their owner alone can read."""
    os.chmod(file, 0o666 & ~_UMASK)


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Appends a line of JSON to a file, whole or not at all; half a line that a killed process left is cut off first.

    Raises:
        ZeroshiftError: if the disk is full or the file cannot be written.
    """
    line = (json.dumps(record) + "\n").encode()
    with disk_errors(path), open(path, "ab+", buffering=0) as file:
        end = _cut_torn_line(file)
        if file.write(line) != len(line):
            file.truncate(end)  # half a line would spoil the file
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _cut_torn_line(file: "FileIO") -> int:
    """Leaves whole lines only in a file that is open to be read and appended to; where it then ends."""
    end = file.seek(0, os.SEEK_END)
    if end:
        file.seek(end - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            end = file.readall().rfind(b"\n") + 1
            file.truncate(end)
    return end


def read_records(path: Path) -> list[dict[str, Any]]:
    """All lines of such a file, if it is there; a last one that a killed process left unfinished is passed over."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


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

        More `adapt.steps` than before extend a run, from `begin` on; no other setting may differ.

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
        from .config import AdaptConfig

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
        from .images import make_grid, save_png

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


def flat(config: "AdaptConfig") -> dict[str, Any]:
    """The settings by dotted name ("adapt.lr"), as they stand in JSON."""
    settings: dict[str, Any] = {}
    for name, value in json.loads(config.to_json()).items():
        settings |= (
            {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
        )
    return settings


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
