"""The progress of a run, read from its folder while it goes."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from zeroshift.errors import ZeroshiftError
from zeroshift.methods.registry import STAGES
from zeroshift.report.charts import Curve, charts
from zeroshift.training.run_folder import RunFolder

__all__ = ["RunProgress", "Watcher"]

_POINTS = 300  # of a curve
_KEPT = 16  # runs


@dataclass(frozen=True)
class RunProgress:
    """How far a run is.

    Attributes:
        stage: title of the stage that is trained now, or was last.
        part, parts: its number from 1, and the number of stages.
        step, steps: finished steps of this stage, and how many it has.
        done, all_steps: finished steps of all stages, and how many they have.
        seconds_left: estimate for this stage, while it is trained.
        curves: loss curves of each stage, by its title.
        preview: the latest grid of samples, source above target; during an earlier stage, its latest table.
        preview_is_table: whether it is such a table.
    """

    stage: str = ""
    part: int = 1
    parts: int = 1
    step: int = 0
    steps: int = 0
    done: int = 0
    all_steps: int = 0
    seconds_left: float | None = None
    curves: dict[str, list[Curve]] = field(default_factory=dict)
    preview: Path | None = None
    preview_is_table: bool = False

    def image(self) -> Image.Image | None:
        """The latest preview."""
        if self.preview is None:
            return None
        try:
            with Image.open(self.preview) as image:
                return image.convert("RGB")
        except OSError:  # it is being replaced
            return None


class Watcher:
    """Reads the progress of runs. A run that has not changed is not read again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[Path, tuple[Any, RunProgress]] = {}

    def stamp(self, run: RunFolder) -> tuple[Any, ...]:
        """Changes when the run has made progress."""
        files = [run.metrics_path, run.generator_path, *sorted((run.path / "previews").glob("*.png"))]
        return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists())

    def progress(self, run: RunFolder) -> RunProgress:
        """The progress of a run."""
        stamp = self.stamp(run)
        with self._lock:
            if run.path not in self._seen or self._seen[run.path][0] != stamp:
                self._seen.pop(run.path, None)
                self._seen[run.path] = stamp, _read(run)
                while len(self._seen) > _KEPT:
                    del self._seen[next(iter(self._seen))]
            return self._seen[run.path][1]


def _read(run: RunFolder) -> RunProgress:
    try:
        records = run.records()
    except ZeroshiftError:
        records = []
    by_stage: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_stage.setdefault(record["stage"], []).append(record)
    planned = _planned(run, list(by_stage))
    adapts = "adapt" in by_stage or len(planned) == 1
    preview = _latest_preview(run, tables=not adapts)
    is_table = preview is not None and not preview.stem.isdigit()
    total = sum(planned.values())
    if not by_stage:
        first = next(iter(planned.values()))
        return RunProgress(steps=first, parts=len(planned), all_steps=total, preview=preview, preview_is_table=is_table)
    finished = {stage: logged[-1]["step"] + 1 for stage, logged in by_stage.items()}
    stage = list(by_stage)[-1]
    part = list(planned).index(stage) + 1
    steps, step = planned[stage], finished[stage]
    earlier = sum(list(planned.values())[: part - 1])  # also of stages whose records are lost
    seconds = [record["seconds"] for record in by_stage[stage][-20:] if isinstance(record.get("seconds"), int | float)]
    left = (steps - step) * sum(seconds) / len(seconds) if seconds and step < steps else None
    curves = {_title(name): charts(_thinned(logged)) for name, logged in by_stage.items()}
    done = min(earlier + step, total)
    return RunProgress(_title(stage), part, len(planned), step, steps, done, total, left, curves, preview, is_table)


def _planned(run: RunFolder, begun: Sequence[str]) -> dict[str, int]:
    """Steps of the stages of a run in their order, by name; for one that its settings do not name, those it has."""
    options = run.config.options
    names = [each.name for each in fields(options)] if is_dataclass(options) else []
    planned = {name: getattr(getattr(options, name), "steps", None) for name in names}
    found = {name: steps for name, steps in planned.items() if isinstance(steps, int)}
    unknown = {stage: 0 for stage in begun if stage not in found and stage != "adapt"}
    return {**unknown, **found, "adapt": run.config.adapt.steps}


def _latest_preview(run: RunFolder, *, tables: bool) -> Path | None:
    """The latest grid of samples; with `tables`, rather the latest table of an earlier stage, if there is one."""
    previews = sorted((run.path / "previews").glob("*.png"))
    samples = [preview for preview in previews if preview.stem.isdigit()]
    others = [preview for preview in previews if not preview.stem.isdigit()]
    found = (others or samples) if tables else (samples or others)
    return found[-1] if found else None


def _thinned(records: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Evenly chosen records, with the last one, at most `_POINTS`."""
    every = math.ceil(len(records) / _POINTS)
    return [record for number, record in enumerate(reversed(records)) if number % every == 0][::-1]


def _title(stage: str) -> str:
    return (STAGES[stage].title if stage in STAGES else "") or stage
