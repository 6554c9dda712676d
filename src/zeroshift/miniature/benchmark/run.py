"""Runs a trial: adapts, draws the people of the test set, and measures the images."""

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from zeroshift.benchmark.executors import TrialJob, Work
from zeroshift.benchmark.processes import peak_memory
from zeroshift.benchmark.provenance import machine
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.miniature.benchmark.bounds import BOUNDS, Draw
from zeroshift.miniature.benchmark.plan import BenchmarkPlan, Trial
from zeroshift.miniature.benchmark.records import (
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

__all__ = ["run_trial", "work"]

_PRELOADED = ("zeroshift.training.trainer", "zeroshift.miniature.exams.truth")  # imported once, not by every trial
_BATCH = 32


def work(plan: BenchmarkPlan, prepare: Callable[[], object] | None = None) -> Work[Trial]:
    """The trials of a plan for an executor; `prepare` is called first in every process."""
    return Work(
        TrialJob(functools.partial(run_trial, plan), prepare, _PRELOADED),
        trials=plan.trials(),
        missing=missing_trials(plan),
        record=functools.partial(record_path, plan),
        finished=lambda trial: read_record(plan, trial) is not None,
    )


def run_trial(plan: BenchmarkPlan, trial: Trial) -> str | None:
    """Adapts, unless the images exist, and measures; returns an error message, or None."""
    try:
        record = read_adapted(plan, trial)
        if record is None:
            record = _adapt(plan, trial)
            write_record(plan, trial, record)
        measures = _measure(plan, trial)
        try:
            write_record(plan, trial, {**record, "evaluated_by": evaluators(), "measures": measures})
        except ZeroshiftError as error:
            values = ", ".join(f"{name} {value:.4g}" for name, value in measures.items())
            return f"{error} It was measured: {values}"
    except ZeroshiftError as error:
        return str(error)
    except Exception as error:  # the other trials continue after any error
        return f"{type(error).__name__}: {error}"
    return None


def _adapt(plan: BenchmarkPlan, trial: Trial) -> dict[str, Any]:
    """Adapts, saves images of the test set, and returns the record with its cost, without measures."""
    from zeroshift.generators.checkpoints.files import load_generator
    from zeroshift.training.trainer import adapt

    config = trial.config(plan.changes)
    source = load_generator(trial.variant.generator)
    source.configure(config.sampling)
    wall_start, processor_start = time.perf_counter(), time.process_time()
    draw: Draw
    if trial.variant.bound:
        draw = BOUNDS[trial.variant.bound](source, parse_domain(trial.target), trial.seed, plan.fit_steps)
    else:
        draw = adapt(config, generator=source).generator.eval()
    seconds, processor_seconds = time.perf_counter() - wall_start, time.process_time() - processor_start
    memory = peak_memory()
    save_people(image_path(plan, trial), _draw_people(plan, trial, source, draw))
    return {
        "variant": trial.variant.name,
        "target": trial.target,
        "seed": trial.seed,
        "provenance": provenance(plan, trial),
        "machine": machine(),
        "seconds": seconds,
        "processor_seconds": processor_seconds,
        "memory": memory,
    }


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
