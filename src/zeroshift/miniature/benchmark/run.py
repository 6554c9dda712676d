"""Runs trials in parallel processes: adapts, draws the people of the test set, and measures the images."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, cast

import torch
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.miniature.benchmark.bounds import BOUNDS, Draw
from zeroshift.miniature.benchmark.plan import BenchmarkPlan, Trial, cores
from zeroshift.miniature.benchmark.records import (
    evaluators,
    image_path,
    machine,
    provenance,
    read_adapted,
    write_record,
)
from zeroshift.miniature.benchmark.sheets import held_out_people, read_people, save_people
from zeroshift.miniature.world.domains import parse_domain
from zeroshift.miniature.world.renderer import render

__all__ = ["run_trial", "run_trials"]

_PRELOADED = ("zeroshift.training.trainer", "zeroshift.miniature.exams.truth")  # imported once, not by every trial
_BATCH = 32

Work = Callable[[BenchmarkPlan, Trial], str | None]


def run_trials(
    plan: BenchmarkPlan,
    trials: Sequence[Trial],
    work: Work | None = None,
    prepare: Callable[[], object] | None = None,
) -> Iterator[tuple[Trial, str | None]]:
    """Runs trials, and yields each with its error message, or None, when it ends.

    Each trial has its own process, so that its peak memory can be measured and its failure affects no other trial.

    Args:
        work: replaces `run_trial` (for tests).
        prepare: called first in every process; the command line sets its allocator options with it.
    """
    context: Any = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    if work is None:
        context.set_forkserver_preload(list(_PRELOADED))
    if os.name == "posix":
        _start_server()
    waiting = list(reversed(trials))
    running: dict[int, tuple[Trial, Any, Connection]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < plan.processes:
                receiver, sender = context.Pipe(duplex=False)
                arguments = (sender, work or run_trial, plan, waiting[-1], prepare)
                process = context.Process(target=_report, args=arguments, daemon=True)
                process.start()
                sender.close()
                running[process.sentinel] = (waiting.pop(), process, receiver)
            for sentinel in cast(list[int], multiprocessing.connection.wait(list(running))):
                trial, process, receiver = running.pop(sentinel)
                process.join()
                finished = receiver.poll() and process.exitcode == 0
                yield trial, receiver.recv() if finished else _ended(process.exitcode)
    finally:
        for _, process, _ in running.values():
            process.terminate()


def _start_server() -> None:
    """Starts the process that forks the trials. It ignores Ctrl-C, also while it imports: the first process ends it."""
    from multiprocessing import forkserver

    if threading.current_thread() is not threading.main_thread():  # only the main thread can change signals
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)


def _ended(exitcode: int | None) -> str:
    return f"its process ended with exit code {exitcode}, possibly out of memory"


def _report(
    sender: Connection, work: Work, plan: BenchmarkPlan, trial: Trial, prepare: Callable[[], object] | None
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare is not None:
        prepare()
    sender.send(work(plan, trial))


def _end_with_parent() -> None:
    """Ends this process when the first one ends, even if that is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def run_trial(plan: BenchmarkPlan, trial: Trial) -> str | None:
    """Adapts, unless the images exist, and measures; returns an error message, or None."""
    torch.set_num_threads(max(1, cores() // plan.processes))
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
    memory = _peak_memory()
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


def _peak_memory() -> float:
    """Peak memory of this process in MiB."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


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
