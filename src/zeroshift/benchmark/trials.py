"""Runs the trials of a benchmark on any generator: each adapts, measures, and keeps a record and pictures.

A trial is an ordinary run folder, which resumes from its checkpoint. Beside it stand its record (.json) and its
pictures (.png): the first samples of the source above those of the adapted generator.
"""

import functools
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import BaseModel, Field
from torch import Tensor

from zeroshift.benchmark.executors import TrialJob, Work, attempt, problem_of
from zeroshift.benchmark.plan import GeneratorPlan, GeneratorTrial
from zeroshift.benchmark.processes import peak_memory
from zeroshift.benchmark.provenance import machine
from zeroshift.errors import ZeroshiftError
from zeroshift.evaluation.evaluate import Evaluation, References, evaluate
from zeroshift.io.atomic import atomic_write
from zeroshift.io.foreign import matches, read_json
from zeroshift.io.images import make_grid, save_png
from zeroshift.sampling.generate import generate
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.run_generators import load_source_and_target

__all__ = ["NUM_SHOWN", "finished_records", "missing_trials", "read_pictures", "record_path", "run_trials", "work"]

NUM_SHOWN = 8  # samples in the pictures of a trial
_MAX_PIXELS = 256  # side of a sample in the pictures
_PRELOADED = ("zeroshift.training.trainer", "zeroshift.evaluation.evaluate")
_COST = ("machine", "seconds", "memory", "gpu_memory")

Text = Annotated[str, Field(max_length=10_000)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _TrialRecord(BaseModel):
    """What the page reads of a record; further entries are kept."""

    variant: Text
    target: Text
    seed: int = Field(strict=True, ge=0, lt=2**63)
    machine: Text
    seconds: Number = 0
    memory: Number = 0
    packed: bool = False
    evaluated: dict[Text, Any]
    measures: dict[Text, Number]
    source: dict[Text, Number]
    truth: dict[Text, Number]
    results: list[dict[Text, Any]]
    left_out: dict[Text, Text]
    notes: list[Text]


def record_path(plan: GeneratorPlan, trial: GeneratorTrial) -> Path:
    """The JSON file of a trial."""
    folder = plan.folder(trial)
    return folder.with_name(f"{folder.name}.json")


def pictures_path(plan: GeneratorPlan, trial: GeneratorTrial) -> Path:
    """The pictures of a trial."""
    folder = plan.folder(trial)
    return folder.with_name(f"{folder.name}.png")


def work(plan: GeneratorPlan, prepare: Callable[[], object] | None = None) -> Work[GeneratorTrial]:
    """The trials of a plan for an executor; `prepare` is called first in every process."""
    return Work(
        TrialJob(functools.partial(run_trials, plan), prepare, _PRELOADED),
        trials=plan.trials(),
        missing=missing_trials(plan),
        record=functools.partial(record_path, plan),
        finished=lambda trial: _read(plan, trial) is not None,
        group=lambda trial: (trial.pair.generator, trial.variant.name, trial.seed),
        again=plan.again,
    )


def run_trials(plan: GeneratorPlan, trials: Sequence[GeneratorTrial]) -> list[str | None]:
    """Adapts or resumes trials that differ in their targets, measures each, and writes its pictures and record.

    Returns:
        For each trial an error message, or None.
    """
    runs = _adapt([attempt(functools.partial(_open, plan, trial)) for trial in trials])
    return [
        problem_of(run if isinstance(run, Exception) else attempt(functools.partial(_measure, plan, trial, run)))
        for trial, run in zip(trials, runs, strict=True)
    ]


@dataclass(frozen=True)
class _Run:
    """The run of a trial, and what it cost: machine, seconds and memory, as far as they are known."""

    folder: RunFolder
    cost: Mapping[str, Any]
    finished: bool = True


def _open(plan: GeneratorPlan, trial: GeneratorTrial) -> _Run:
    """The run of a trial as it is, with the cost in an earlier record of the trial."""
    path = record_path(plan, trial)
    previous: dict[str, Any] = read_json(path) if path.exists() else {}
    folder = RunFolder.open(plan.folder(trial), plan.config(trial))
    return _Run(folder, {name: previous[name] for name in _COST if name in previous}, folder.finished)


def _adapt(opened: Sequence[_Run | Exception]) -> list[_Run | Exception]:
    """Brings runs to their ends in lockstep; an error takes the place of its run."""
    from zeroshift.training.trainer import adapt_together

    started = [run for run in opened if isinstance(run, _Run) and not run.finished]
    folders = [run.folder for run in started]
    outcomes = attempt(lambda: adapt_together([each.config for each in folders], folders) if folders else [])
    ends = iter([outcomes] * len(started) if isinstance(outcomes, Exception) else outcomes)
    cost: dict[str, Any] = {"machine": machine(), "memory": peak_memory()}
    if torch.cuda.is_available():
        cost["gpu_memory"] = torch.cuda.max_memory_allocated() / 2**20
    runs: list[_Run | Exception] = []
    for run in opened:
        if isinstance(run, Exception):
            runs.append(run)
        elif run.finished:
            runs.append(_priced(run.folder, {"machine": machine(), **run.cost}))
        else:
            end = next(ends)
            runs.append(end if isinstance(end, Exception) else _priced(run.folder, cost))
    return runs


def _priced(folder: RunFolder, cost: Mapping[str, Any]) -> _Run:
    """A finished run, as its folder says, with its cost; seconds are those of all steps, also before a resume.

    Steps of several runs in lockstep have no time of their own, and the process has the memory of all of them. So a run
    with such steps has neither.
    """
    run, records = RunFolder.read(folder.path), folder.records()
    if all("seconds" in record for record in records):
        return _Run(run, {**cost, "seconds": sum(float(record["seconds"]) for record in records)})
    return _Run(run, {"machine": cost["machine"], "packed": True})


def _measure(plan: GeneratorPlan, trial: GeneratorTrial, run: _Run) -> None:
    """Measures a finished run, and writes pictures and record of its trial."""
    folder = plan.reference_folder(trial.pair)
    with warnings.catch_warnings(record=True) as noted:
        evaluation = evaluate(
            run.folder,
            plan.metrics,
            references=None if folder is None else References.from_folder(folder),
            num=plan.num,
            skip_unavailable=True,
        )
    save_png(pictures_path(plan, trial), make_grid(_samples(run.folder), NUM_SHOWN, gap=0))
    sentences = [str(each.message) for each in noted if issubclass(each.category, UserWarning)]
    record = {
        "variant": trial.variant.name,
        "target": trial.pair.name,
        "seed": trial.seed,
        "provenance": plan.provenance(trial),
        **run.cost,
        "evaluated": _evaluated(plan, trial),
        **_values(evaluation),
        "left_out": evaluation.left_out,
        "notes": sorted(dict.fromkeys([*sentences, *evaluation.unsaved])),
    }
    _write(record_path(plan, trial), record)


def _write(path: Path, record: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _values(evaluation: Evaluation) -> dict[str, Any]:
    """The results, and their values by "MEASURE:NETWORK" for the adapted generator, the source and the truth."""
    values: dict[str, dict[str, float]] = {"measures": {}, "source": {}, "truth": {}}
    for result in evaluation.results:
        key = f"{result.measure}:{result.network}"
        compared = (result.value, result.source_value, result.truth_value)
        for side, value in zip(values, compared, strict=True):
            if value is not None:
                values[side][key] = value
    return {**values, "results": [asdict(result) for result in evaluation.results]}


def _evaluated(plan: GeneratorPlan, trial: GeneratorTrial) -> dict[str, Any]:
    """What the values of a trial depend on, beside its generator."""
    folder = plan.reference_folder(trial.pair)
    metrics = None if plan.metrics is None else list(plan.metrics)
    return {"metrics": metrics, "num": plan.num, "references": None if folder is None else str(folder)}


@torch.inference_mode()
def _samples(run: RunFolder) -> Tensor:
    """The first samples of source, then of target: [2 NUM_SHOWN, 3, R, R] with R of at most `_MAX_PIXELS`."""
    config = run.config
    batches = generate(
        load_source_and_target(run), NUM_SHOWN, truncation_psi=config.truncation_psi, class_index=config.class_index
    )
    images = torch.cat([torch.cat(side) for side in zip(*batches, strict=True)])
    if images.shape[-1] <= _MAX_PIXELS:
        return images
    return F.interpolate(images, (_MAX_PIXELS, _MAX_PIXELS), mode="bicubic", antialias=True).clamp(-1, 1)


def read_pictures(plan: GeneratorPlan, trial: GeneratorTrial) -> tuple[Tensor, Tensor] | None:
    """The source's and the target's samples in the pictures of a trial, [NUM_SHOWN, 3, R, R] each, or None."""
    path = pictures_path(plan, trial)
    if not path.exists():
        return None
    with Image.open(path) as sheet:
        pixels = torch.from_numpy(np.array(sheet.convert("RGB")))
    size = pixels.shape[1] // NUM_SHOWN
    tiles = pixels.unflatten(0, (2, size)).unflatten(2, (NUM_SHOWN, size)).permute(0, 2, 4, 1, 3).float() / 127.5 - 1
    return tiles[0], tiles[1]


def _read(plan: GeneratorPlan, trial: GeneratorTrial) -> dict[str, Any] | None:
    """The record of a trial with this plan's measures; None if it has to run or to be measured.

    Raises:
        ZeroshiftError: if the file is damaged, or has other values than a record.
    """
    path = record_path(plan, trial)
    if not path.exists():
        return None
    try:
        record: Any = read_json(path)
        matches(_TrialRecord, record, str(path))
    except ZeroshiftError as error:
        if isinstance(error.__cause__, OSError):
            raise
        raise ZeroshiftError(f"{error} Delete the file, and run the benchmark again.") from error
    checked: dict[str, Any] = record
    return checked if checked["evaluated"] == _evaluated(plan, trial) else None


def missing_trials(plan: GeneratorPlan) -> list[GeneratorTrial]:
    """The trials that have to run, to be measured, or to be measured again."""
    return [trial for trial in plan.trials() if plan.again or _read(plan, trial) is None]


def finished_records(plan: GeneratorPlan) -> list[dict[str, Any]]:
    """The records of all finished trials."""
    return [record for trial in plan.trials() if (record := _read(plan, trial)) is not None]
