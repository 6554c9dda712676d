"""Results of measures, as stored in RUN/metrics-MEASURE.jsonl."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zeroshift.config.schema import build, check_types, require
from zeroshift.errors import ZeroshiftError
from zeroshift.evaluation.metrics.registry import MEASURES
from zeroshift.io.atomic import append_record, disk_errors
from zeroshift.io.outputs import require_writable
from zeroshift.io.records import read_records
from zeroshift.training.run_folder import RunFolder

__all__ = ["Result", "append_result", "read_results", "require_writable_results"]

_PREFIX, _SUFFIX = "metrics-", ".jsonl"
_OLD_NAMES = {"truncation": "truncation_psi"}  # of version 0.1


@dataclass(frozen=True)
class Result:
    """One measured number, a line of RUN/metrics-MEASURE.jsonl."""

    measure: str
    value: float | None  # None: undefined, because no two samples share a reference or the run has diverged
    spread: float | None  # standard deviation over splits or subsets, if the protocol has any
    better: str  # "higher" or "lower"
    protocol: str
    network: str
    samples: int
    references: int
    reference: str  # origin of the reference images; "" if the measure needs none
    seed: int
    truncation_psi: float
    time: str  # UTC
    steps: int = 0  # adaptation steps of the measured generator; 0: unknown
    source_value: float | None = None  # the same measure of the unadapted source; None: unknown
    truth_value: float | None = None  # of the true target images of the same latents, where they are known

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Result":
        """The result of a line, including lines of version 0.1.

        Raises:
            ZeroshiftError: if fields are missing, unknown or of another type.
        """
        result: Result = build(cls, {_OLD_NAMES.get(name, name): value for name, value in record.items()})
        check_types(result)
        require(result.better in ("higher", "lower"), f"better is {result.better!r}; it must be 'higher' or 'lower'.")
        return result


def append_result(run: RunFolder, result: Result) -> None:
    """Appends a result to the file of its measure.

    Raises:
        ZeroshiftError: if the file cannot be written.
    """
    append_record(_file(run, result.measure), asdict(result))


def require_writable_results(run: RunFolder) -> None:
    """Raises ZeroshiftError unless results can be added to the folder of a run. Changes nothing."""
    require_writable(run.path)
    for file in run.path.glob(f"{_PREFIX}*{_SUFFIX}"):
        with disk_errors(file), open(file, "ab"):
            pass


def read_results(run: RunFolder) -> list[Result]:
    """The latest result of each measurement of a run's current generator, in the order of `MEASURES`.

    Results from before the run was extended (fewer steps) are left out, damaged lines as well, with a warning. Measures
    that are no longer registered come last.
    """
    delivered = run.delivered_steps
    latest: dict[tuple[Any, ...], Result] = {}
    on_disk = (file.name[len(_PREFIX) : -len(_SUFFIX)] for file in sorted(run.path.glob(f"{_PREFIX}*{_SUFFIX}")))
    for measure in dict.fromkeys((*MEASURES, *on_disk)):
        for result in map(Result.from_record, read_records(_file(run, measure), _is_result)):
            if result.steps in (0, delivered):
                key = (measure, result.network, result.reference, result.samples, result.seed, result.truncation_psi)
                latest[key] = result
    return list(latest.values())


def _is_result(record: dict[str, Any]) -> bool:
    try:
        Result.from_record(record)
    except ZeroshiftError:
        return False
    return True


def _file(run: RunFolder, measure: str) -> Path:
    return run.path / f"{_PREFIX}{measure}{_SUFFIX}"
