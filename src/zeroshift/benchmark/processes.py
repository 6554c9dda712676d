"""Runs the trials of a benchmark in parallel processes, and measures what they cost."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeVar, cast

__all__ = ["cores", "default_processes", "peak_memory", "run_parallel"]

Plan = TypeVar("Plan")
One = TypeVar("One")


def cores() -> int:
    """Number of processor cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_processes() -> int:
    """One trial at a time with a GPU, otherwise one per processor core."""
    import torch

    return 1 if torch.cuda.is_available() else cores()


def run_parallel(
    work: Callable[[Plan, One], str | None],
    plan: Plan,
    trials: Sequence[One],
    processes: int,
    *,
    prepare: Callable[[], object] | None = None,
    preload: Sequence[str] = (),
) -> Iterator[tuple[One, str | None]]:
    """Runs trials, and yields each with its error message, or None, when it ends.

    Each trial has its own process, so that its peak memory can be measured and its failure affects no other trial.

    Args:
        work: maps plan and trial to an error message, or None. A function of a module: processes find it by name.
        plan, trials: its arguments; they are pickled.
        processes: trials that run at the same time.
        prepare: called first in every process; the command line sets its allocator options with it.
        preload: modules that are imported once and not by every trial.
    """
    context: Any = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    if preload:
        context.set_forkserver_preload(list(preload))
    if os.name == "posix":
        _start_server()
    waiting = list(reversed(trials))
    running: dict[int, tuple[One, Any, Connection]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                receiver, sender = context.Pipe(duplex=False)
                arguments = (sender, work, plan, waiting[-1], prepare)
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
    sender: Connection,
    work: Callable[[Plan, One], str | None],
    plan: Plan,
    trial: One,
    prepare: Callable[[], object] | None,
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


def peak_memory() -> float:
    """Peak memory of this process in MiB."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
