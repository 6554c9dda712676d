"""A run folder: settings, metrics, checkpoint and results of one adaptation (docs/run-folder.md).

Files are written atomically, so that repeating the command of a killed run resumes it.
"""

import contextlib
import dataclasses
import json
import shutil
import warnings
from collections.abc import Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroshift.config.settings import AdaptConfig
from zeroshift.core.environment import environment
from zeroshift.errors import DamagedFileError, ZeroshiftError
from zeroshift.io.atomic import append_record, atomic_write, disk_errors
from zeroshift.io.foreign import first_line, parse_json, read_json
from zeroshift.io.leftovers import TEMPORARY_PREFIX
from zeroshift.io.locks import locked_folder
from zeroshift.io.numbering import numbered
from zeroshift.io.outputs import is_ours
from zeroshift.io.records import read_records
from zeroshift.io.tensor_files import read_metadata
from zeroshift.methods.config_file import MADE_WITH, from_values, to_json
from zeroshift.methods.configure import flat
from zeroshift.training.resume_checks import check_same, same_results
from zeroshift.training.trackers import Trackers, require_trackers

if TYPE_CHECKING:
    import torch

__all__ = ["RunFolder"]


class RunFolder:
    """One run on disk. `RunFolder.open` creates or resumes a run for training, `RunFolder.read` only reads it.

    path/config.json             settings that apply to the method and the generator
    path/metrics.jsonl           one line per stage and step
    path/events/                 the same for TensorBoard
    path/previews/               preview grids
    path/checkpoints/last.pt     state of the training for a resume; previous.pt: the one before, for a damaged last.pt;
                                 both are removed at the end, unless `keep_checkpoints` is set
    path/source.safetensors      the source generator, if it was given as an object
    path/generator.safetensors   the adapted generator, written last; an extended run keeps it until there is a new one
    path/pairs.png, report.html  source and target samples, report
    path/metrics-MEASURE.jsonl   results of `zeroshift evaluate`, one line per measurement
    """

    def __init__(self, path: str | Path, config: AdaptConfig) -> None:
        self.path = Path(path)
        self.config = config
        self._logged: int | None = None  # number of records in metrics.jsonl; None: not counted yet
        self._made_folder = False

    def __repr__(self) -> str:
        return f"<RunFolder {self.path}: {self.config.source} to {self.config.target}, {self.config.method}>"

    def _repr_html_(self) -> str | None:
        """Source and target samples, as a notebook shows a run; None before there are any."""
        if not self.pairs_path.exists():
            return None
        import numpy as np
        from PIL import Image

        from zeroshift.io.images import data_uri

        with Image.open(self.pairs_path) as sheet:
            picture = data_uri(np.asarray(sheet.convert("RGB")), lossy=True)
        return f'<p>{escape(repr(self)[1:-1])}</p><img src="{picture}" alt="source and adapted samples">'

    @classmethod
    def open(cls, path: str | Path, config: AdaptConfig) -> "RunFolder":
        """A new run in a new or empty folder, or the existing run in the folder, to be resumed.

        A larger `adapt.steps` extends a run. NEUTRAL_SETTINGS may change; all others must be the same.

        Raises:
            ZeroshiftError: if the folder holds something else or a run with other settings, is in use or cannot be
            written.
        """
        run = cls(path, config)
        existing = cls.read(path).config if run._config_path.exists() else None
        if existing is not None:
            check_same(run.path, existing, config)
            if not same_results(existing, config) and run.generator_path.exists() and not run.has_checkpoint:
                raise ZeroshiftError(
                    f"The run in {path} cannot be extended, because it has no checkpoint: a finished run keeps one "
                    "only with --keep-checkpoints. Start again in another folder (--out)."
                )
        elif run.path.exists():
            _check_empty(run.path)
        require_trackers(config.log_with)
        with disk_errors(run.path):
            run._made_folder = not run.path.exists()
            run.path.mkdir(parents=True, exist_ok=True)
        with run.lock():
            if existing is None:
                run.write_config()
        return run

    def write_config(self, device: str = "") -> None:
        """Writes the settings and what the run is made with (`environment`), unless the folder already has them.

        An extended run keeps its old settings until this call, and its old generator until the new one is written.

        Args:
            device: what the run computes on; empty: not known yet.
        """
        made_with = environment(device)
        written = self._config_path.exists() and flat(self.read(self.path).config) == flat(self.config)
        if written and self.made_with.items() >= made_with.items():
            return
        with atomic_write(self._config_path) as temporary:
            temporary.write_text(to_json(self.config, made_with), encoding="utf-8")

    @property
    def made_with(self) -> dict[str, str]:
        """Versions, commit and device of the last process that trained; empty for runs of earlier versions."""
        values = read_json(self._config_path).get(MADE_WITH, {})
        return {str(name): str(value) for name, value in values.items()} if isinstance(values, dict) else {}

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Prevents other processes from training in this folder, and removes temporary files of a killed process.

        Raises:
            ZeroshiftError: if another process trains in it.
        """
        return locked_folder(self.path, "training")

    @classmethod
    def read(cls, path: str | Path) -> "RunFolder":
        """The run in `path`, finished or not; writes nothing.

        Raises:
            ZeroshiftError: if there is no run, or its config.json cannot be read.
        """
        file = Path(path) / "config.json"
        if not file.is_file():
            raise ZeroshiftError(
                f"{path} is not a run folder: it has no config.json. `zeroshift adapt --out FOLDER` makes one."
            )
        values = read_json(file)
        try:
            return cls(path, from_values(values))
        except ZeroshiftError as error:
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
    def previous_checkpoint_path(self) -> Path:
        return self.path / "checkpoints" / "previous.pt"

    @property
    def has_checkpoint(self) -> bool:
        """Whether a checkpoint exists, damaged or not."""
        return self.checkpoint_path.exists() or self.previous_checkpoint_path.exists()

    @property
    def generator_path(self) -> Path:
        return self.path / "generator.safetensors"

    @property
    def source_path(self) -> Path:
        return self.path / "source.safetensors"

    @property
    def source(self) -> str:
        """The source generator, as an argument of `load_generator`."""
        return str(self.source_path) if self.source_path.exists() else self.config.generator

    @property
    def source_config(self) -> AdaptConfig:
        """The settings, with `source` as generator: what the catalogue knows about the run's source generator."""
        return dataclasses.replace(self.config, generator=self.source)

    @property
    def pairs_path(self) -> Path:
        return self.path / "pairs.png"

    @property
    def report_path(self) -> Path:
        return self.path / "report.html"

    @property
    def delivered_steps(self) -> int | None:
        """Adapt steps of the adapted generator, 0 if its file does not state them; None if there is no generator."""
        if not self.generator_path.exists():
            return None
        described = read_metadata(self.generator_path).get("zeroshift", "{}")
        try:
            return int(parse_json(described, f"The description in {self.generator_path}").get("steps", 0))
        except (ValueError, TypeError, AttributeError) as error:
            raise DamagedFileError(f"The generator {self.generator_path} is damaged ({first_line(error)}).") from error

    @property
    def finished(self) -> bool:
        """Whether the adapted generator exists and was made with these settings."""
        return self.delivered_steps == self.config.adapt.steps and same_results(
            self.read(self.path).config, self.config
        )

    def require_generator(self) -> None:
        """Raises ZeroshiftError unless the run has an adapted generator."""
        if self.generator_path.is_symlink() and not self.generator_path.exists():
            raise ZeroshiftError(f"{self.generator_path} is a link to a file that does not exist. Restore that file.")
        if not self.generator_path.exists():
            raise ZeroshiftError(
                f"The run in {self.path} is not finished: repeat its `zeroshift adapt` command to resume it."
            )

    def discard_if_unused(self) -> None:
        """Removes the folder of a run that failed before its first step, for example because a file was missing."""
        first_preview = self._image_path(numbered(0))
        written = {str(entry.relative_to(self.path)) for entry in self.path.rglob("*")}
        if "config.json" in written and written <= {"config.json", "previews", f"previews/{first_preview.name}"}:
            first_preview.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                first_preview.parent.rmdir()
            self._config_path.unlink()
            if self._made_folder:
                self.path.rmdir()

    @cached_property
    def _trackers(self) -> Trackers:
        return Trackers(self.config.log_with, self.path, flat(self.config))

    def log(self, stage: str, step: int, **values: Any) -> None:
        """Appends {"stage", "step", **values} to metrics.jsonl; numeric values also go to the trackers (`log_with`)."""
        number = len(self.records()) if self._logged is None else self._logged
        append_record(self.metrics_path, {"stage": stage, "step": step, **values})
        self._trackers.log(stage, step, number, values)
        self._logged = number + 1

    def records(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, see `read_records`; damaged ones are left out with a warning."""
        return read_records(self.metrics_path, _is_step)

    def truncate_log(self, stage: str, step: int, stages: Sequence[str]) -> None:
        """Removes what was logged at or after (stage, step), for a resume from a checkpoint taken there.

        Args:
            stages: names of the run's stages, in order.
        """
        limit = (stages.index(stage), step)
        kept = [
            record
            for record in self.records()
            if record["stage"] in stages and (stages.index(record["stage"]), record["step"]) < limit
        ]
        with atomic_write(self.metrics_path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        self._trackers.log_again(kept)
        self._logged = len(kept)

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replaces the last checkpoint by `state`, which holds tensors, numbers, strings, lists and dicts only.

        The replaced one is kept as previous.pt.
        """
        from zeroshift.io.checksums import save_state

        save_state(self.checkpoint_path, state, self.previous_checkpoint_path)

    def remove_checkpoints(self) -> None:
        """Removes the checkpoints of a finished run."""
        with disk_errors(self.path):
            shutil.rmtree(self.checkpoint_path.parent, ignore_errors=True)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint on the CPU, or None if there is none.

        If it is damaged, the one before it, with a warning: the steps after it are repeated.

        Raises:
            DamagedFileError: if there are only damaged checkpoints, or files that hold more than plain data.
        """
        from zeroshift.io.checksums import load_state

        damaged: list[Path] = []
        for path in (self.checkpoint_path, self.previous_checkpoint_path):
            if path.exists():
                try:
                    state = load_state(path)
                except DamagedFileError:
                    damaged.append(path)
                    continue
                if damaged:
                    warnings.warn(
                        f"The checkpoint {damaged[0]} is damaged. The run continues from the one before it, "
                        f"{path.name}, and repeats the steps after it.",
                        stacklevel=2,
                    )
                return state
        if damaged:
            raise DamagedFileError(
                f"The checkpoint {damaged[0]} is damaged, and there is no other one. Delete the folder "
                f"{self.checkpoint_path.parent} to start this run from its beginning."
            )
        return None

    def save_image(self, name: str, images: "torch.Tensor", columns: int) -> Path:
        """Writes images [N, C, H, W] in [-1, 1] as a grid to previews/NAME.png."""
        from zeroshift.io.images import make_grid, save_png

        path = self._image_path(name)
        for old in path.parent.glob("[0-9]" * 6 + ".png"):  # of versions before 0.2; the order by name stays
            if is_ours(old):
                old.replace(self._image_path(numbered(int(old.stem))))
        return save_png(path, make_grid(images, columns))

    def _image_path(self, name: str) -> Path:
        return self.path / "previews" / f"{name}.png"

    def close(self) -> None:
        """Ends the trackers; a later `log` starts new ones."""
        self._trackers.close()


def _check_empty(path: Path) -> None:
    if not path.is_dir():
        raise ZeroshiftError(f"{path} is a file. Give the run a new or empty folder (--out).")
    foreign = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith(TEMPORARY_PREFIX))
    if foreign:
        listed = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
        raise ZeroshiftError(
            f"{path} is not a run folder but holds files ({listed}). Give a new or empty folder (--out)."
        )


def _is_step(record: dict[str, Any]) -> bool:
    """Whether a record is a line of metrics.jsonl: its fields of fixed meaning have the right types."""
    step, layers = record.get("step"), record.get("layers", [])
    numbers = [value for value in record.values() if isinstance(value, int | float)]
    return (
        isinstance(record.get("stage"), str)
        and (type(step) is int and step >= 0)
        and isinstance(record.get("seconds", 0), int | float)
        and (isinstance(layers, list) and all(isinstance(layer, str) for layer in layers))
        and all(isinstance(number, float) or abs(number) < 2**63 for number in numbers)
    )
