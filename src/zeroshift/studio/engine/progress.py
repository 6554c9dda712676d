"""The progress of a run, read from its folder while it goes."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
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
        step, steps: finished steps of the adapt stage, and how many it has.
        seconds_left: estimate for the adapt stage, while it is trained.
        curves: loss curves of each stage, by its title.
        preview: the latest grid of samples, source above target.
        preview_step: its step.
    """

    stage: str = ""
    step: int = 0
    steps: int = 0
    seconds_left: float | None = None
    curves: dict[str, list[Curve]] = field(default_factory=dict)
    preview: Path | None = None
    preview_step: int = 0

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
        files = [run.metrics_path, run.generator_path, *sorted((run.path / "previews").glob("*.png"))[-1:]]
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
    previews = sorted((run.path / "previews").glob("*.png"))
    preview = previews[-1] if previews else None
    preview_step = int(preview.stem) if preview is not None and preview.stem.isdigit() else 0
    try:
        records = run.records()
    except ZeroshiftError:
        records = []
    by_stage: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_stage.setdefault(record["stage"], []).append(record)
    steps = run.config.adapt.steps
    if not by_stage:
        return RunProgress(steps=steps, preview=preview, preview_step=preview_step)
    adapted = by_stage.get("adapt", [])
    step = adapted[-1]["step"] + 1 if adapted else 0
    seconds = [record["seconds"] for record in adapted[-20:] if isinstance(record.get("seconds"), int | float)]
    left = (steps - step) * sum(seconds) / len(seconds) if seconds and step < steps else None
    curves = {_title(stage): charts(_thinned(logged)) for stage, logged in by_stage.items()}
    return RunProgress(_title(list(by_stage)[-1]), step, steps, left, curves, preview, preview_step)


def _thinned(records: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Evenly chosen records, with the last one, at most `_POINTS`."""
    every = math.ceil(len(records) / _POINTS)
    return [record for number, record in enumerate(reversed(records)) if number % every == 0][::-1]


def _title(stage: str) -> str:
    return (STAGES[stage].title if stage in STAGES else "") or stage
