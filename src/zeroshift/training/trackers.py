"""Experiment trackers of a run (TensorBoard, Weights & Biases, MLflow, ...), through accelerate."""

import contextlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import disk_errors

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

__all__ = ["TENSORBOARD", "Trackers", "require_trackers"]

TENSORBOARD = "tensorboard"
_PROJECT = "zeroshift"
_NAMED = ("wandb", "trackio")  # trackers that take the name of a run


def require_trackers(names: Sequence[str]) -> None:
    """Raises ZeroshiftError unless accelerate has these trackers and their packages are installed."""
    if not set(names) - {TENSORBOARD}:
        return  # a dependency; accelerate.tracking takes long to import
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import LoggerType

    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ZeroshiftError(
                f"There is no tracker {name!r} (--log-with). Choose from {', '.join(sorted(LOGGER_TYPE_TO_CLASS))}."
            )
        if name in {str(one) for one in LoggerType} - {str(one) for one in get_available_trackers()}:
            package = name.replace("_", "-")
            raise ZeroshiftError(f"The tracker {name!r} (--log-with) needs its package: pip install {package}")


class Trackers:
    """The trackers of a run. They start with the first logged step.

    TensorBoard counts the steps of each stage, and is written again when a run resumes. The others count the steps of
    all stages, and a resumed run adds to them. A tracker other than TensorBoard that fails is left out with a warning.

    Args:
        names: names of trackers in accelerate.
        folder: the run folder; TensorBoard writes to its folder "events".
        settings: the settings of the run by name.
    """

    def __init__(self, names: Sequence[str], folder: Path, settings: Mapping[str, Any]) -> None:
        self._names, self._folder, self._settings = names, folder, settings
        self._started: dict[str, GeneralTracker] | None = None

    def log(self, stage: str, step: int, number: int, values: Mapping[str, Any]) -> None:
        """Logs the numbers among the values of a step as "STAGE/NAME".

        Args:
            step: number of the step in its stage.
            number: number of the step in the run.
        """
        numbers = {f"{stage}/{name}": value for name, value in values.items() if isinstance(value, int | float)}
        with disk_errors(self._folder / "events"):
            for name, tracker in list(self._trackers().items()):
                with self._left_out_if_it_fails(name):
                    tracker.log(numbers, step=step if name == TENSORBOARD else number)

    def log_again(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Replaces what TensorBoard has by the records of a run that is resumed."""
        self.close()
        if TENSORBOARD not in self._names:
            return
        with disk_errors(self._folder):
            shutil.rmtree(self._folder / "events", ignore_errors=True)
        again = Trackers([TENSORBOARD], self._folder, self._settings)
        for number, record in enumerate(records):
            values = {key: value for key, value in record.items() if key not in ("stage", "step")}
            again.log(record["stage"], record["step"], number, values)
        again.close()

    def close(self) -> None:
        """Ends the trackers; a later `log` starts new ones."""
        started, self._started = self._started or {}, None
        with disk_errors(self._folder / "events"):
            for name, tracker in started.items():
                with self._left_out_if_it_fails(name):
                    tracker.finish()

    def _trackers(self) -> "dict[str, GeneralTracker]":
        if self._started is None:
            self._started = {}
            for name in self._names:
                with self._left_out_if_it_fails(name):
                    self._started[name] = self._start(name)
        return self._started

    def _start(self, name: str) -> "GeneralTracker":
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState()  # the trackers' own messages need it
        kind = LOGGER_TYPE_TO_CLASS[name]
        if name == TENSORBOARD:
            tracker = kind("events", str(self._folder))
        else:
            folder = (str(self._folder),) if kind.requires_logging_directory else ()
            tracker = kind(_PROJECT, *folder, **({"name": self._folder.name} if name in _NAMED else {}))
        tracker.main_process_only = False  # only the leading process has a run folder
        tracker.start()
        if name != TENSORBOARD:  # config.json is in the same folder
            tracker.store_init_configuration({key: _plain(value) for key, value in self._settings.items()})
        return tracker

    @contextlib.contextmanager
    def _left_out_if_it_fails(self, name: str) -> Iterator[None]:
        if name == TENSORBOARD:
            yield
            return
        try:
            yield
        except Exception as error:  # of any package, and not worth the run
            if self._started is not None:
                self._started.pop(name, None)
            self._names = [one for one in self._names if one != name]
            warnings.warn(f"The tracker {name!r} failed and is left out: {error!s:.200}", stacklevel=4)


def _plain(value: Any) -> bool | str | int | float | None:
    """A setting as trackers take it."""
    return value if isinstance(value, bool | str | int | float | None) else json.dumps(value)
