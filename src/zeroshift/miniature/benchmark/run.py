"""Runs trials: adapts, draws the people of the test set, and measures the images."""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from zeroshift.benchmark.executors import TrialJob, Work, attempt, problem_of
from zeroshift.benchmark.processes import peak_memory
from zeroshift.benchmark.provenance import machine
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.miniature.benchmark.bounds import BOUNDS, Draw
from zeroshift.miniature.benchmark.plan import BenchmarkPlan, Trial
from zeroshift.miniature.benchmark.records import (
    Record,
    evaluators,
    image_path,
    missing_trials,
    provenance,
    read_adapted,
    read_record,
    record_path,
    write_record,
)
from zeroshift.miniature.benchmark.sheets import held_out_people, read_people, save_people
from zeroshift.miniature.world.domains import parse_domain
from zeroshift.miniature.world.renderer import render

__all__ = ["run_trials", "work"]

_PRELOADED = ("zeroshift.training.trainer", "zeroshift.miniature.exams.truth")  # imported once, not by every trial
_BATCH = 32


def work(plan: BenchmarkPlan, prepare: Callable[[], object] | None = None) -> Work[Trial]:
    """The trials of a plan for an executor; `prepare` is called first in every process."""
    return Work(
        TrialJob(functools.partial(run_trials, plan), prepare, _PRELOADED),
        trials=plan.trials(),
        missing=missing_trials(plan),
        record=functools.partial(record_path, plan),
        finished=lambda trial: read_record(plan, trial) is not None,
        group=lambda trial: (*trial.key, "alone") if trial.variant.bound else (trial.variant.name, trial.seed),
    )


def run_trials(plan: BenchmarkPlan, trials: Sequence[Trial]) -> list[str | None]:
    """Adapts those without images, in lockstep, and measures all.

    Args:
        trials: one, or several of one variant and seed that are no bounds.

    Returns:
        For each trial an error message, or None.
    """
    records = [attempt(functools.partial(read_adapted, plan, trial)) for trial in trials]
    new = [trial for trial, record in zip(trials, records, strict=True) if record is None]
    outcomes = attempt(lambda: _adapt(plan, new) if new else [])
    adapted = iter([outcomes] * len(new) if isinstance(outcomes, Exception) else outcomes)
    complete = [next(adapted) if record is None else record for record in records]
    return [
        problem_of(
            record if isinstance(record, Exception) else attempt(functools.partial(_complete, plan, trial, record))
        )
        for trial, record in zip(trials, complete, strict=True)
    ]


def _complete(plan: BenchmarkPlan, trial: Trial, record: Record) -> None:
    """Measures the images of a trial, and completes its record."""
    measures = _measure(plan, trial)
    try:
        write_record(plan, trial, {**record, "evaluated_by": evaluators(), "measures": measures})
    except ZeroshiftError as error:
        values = ", ".join(f"{name} {value:.4g}" for name, value in measures.items())
        raise ZeroshiftError(f"{error} It was measured: {values}") from error


def _adapt(plan: BenchmarkPlan, trials: Sequence[Trial]) -> list[Record | Exception]:
    """Adapts, draws the test set and writes a record without measures; an error takes the place of a record.

    Trials in lockstep have no time of their own, and the process has the memory of all of them. So their records have
    neither.
    """
    from zeroshift.generators.checkpoints.files import load_generator
    from zeroshift.training.trainer import adapt_together

    variant, configs = trials[0].variant, [trial.config(plan.changes) for trial in trials]
    source = load_generator(variant.generator)
    source.configure(configs[0].sampling)
    wall_start, processor_start = time.perf_counter(), time.process_time()
    draws: list[Draw | Exception]
    if variant.bound:
        bound = BOUNDS[variant.bound]
        draws = [bound(source, parse_domain(trial.target), trial.seed, plan.fit_steps) for trial in trials]
    else:
        outcomes = adapt_together(configs, generator=source)
        draws = [each if isinstance(each, Exception) else each.generator.eval() for each in outcomes]
    cost: dict[str, Any] = {"packed": True}
    if len(trials) == 1:
        seconds, processor_seconds = time.perf_counter() - wall_start, time.process_time() - processor_start
        cost = {"seconds": seconds, "processor_seconds": processor_seconds, "memory": peak_memory()}
    return [
        draw if isinstance(draw, Exception) else attempt(functools.partial(_keep, plan, trial, source, draw, cost))
        for trial, draw in zip(trials, draws, strict=True)
    ]


def _keep(plan: BenchmarkPlan, trial: Trial, source: Generator, draw: Draw, cost: Record) -> Record:
    """Saves the images of the test set, and writes and returns the record with its cost, without measures."""
    save_people(image_path(plan, trial), _draw_people(plan, trial, source, draw))
    record = {
        "variant": trial.variant.name,
        "target": trial.target,
        "seed": trial.seed,
        "provenance": provenance(plan, trial),
        "machine": machine(),
        **cost,
    }
    write_record(plan, trial, record)
    return record


@torch.inference_mode()
def _draw_people(plan: BenchmarkPlan, trial: Trial, source: Generator, draw: Draw) -> Tensor:
    """Images of the test people by `draw`: [N, 3, 64, 64].

    The world's latents are those of the StyleGAN2. For diffusion models, the source inverts the people's photos, and
    `draw` continues from there with the same number of steps.
    """
    latents = held_out_people(plan.people)
    if not isinstance(source, Diffusion):
        return torch.cat([draw(part) for part in latents.split(_BATCH)])
    from zeroshift.inversion.codes import invert

    codes = invert(source, render(latents), plan.out / "inversions")
    assert isinstance(draw, Generator)
    sampling = trial.config(plan.changes).sampling
    assert isinstance(sampling, DDIMOptions)
    draw.configure(replace(sampling, steps=sampling.invert_steps))
    return torch.cat([draw.synthesize(part) for part in codes.split(_BATCH)])


def _measure(plan: BenchmarkPlan, trial: Trial) -> dict[str, float]:
    from zeroshift.miniature.exams.truth import TruthExam
    from zeroshift.miniature.networks.encoders import load_evaluator, load_probe

    images = read_people(image_path(plan, trial), plan.people)
    domain, latents = parse_domain(trial.target), held_out_people(plan.people)
    return TruthExam.make(domain, latents, load_evaluator(), load_probe()).measure(images)
