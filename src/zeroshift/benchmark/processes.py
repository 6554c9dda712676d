"""Runs the trials of a benchmark in parallel processes of this machine, and measures what they cost."""

import itertools
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeVar, cast

import torch

from zeroshift.benchmark.executors import TrialJob, perform
from zeroshift.errors import ZeroshiftError

__all__ = ["LocalPool", "cores", "local_pool", "peak_memory"]

One = TypeVar("One")


def cores() -> int:
    """Number of processor cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_pool(
    processes: int | None = None, threads: int | None = None, gpus: float | None = None, *, on_gpus: bool = True
) -> "LocalPool":
    """A pool that divides the cores and GPUs of this machine among the trials.

    Args:
        processes: trials that run at the same time; None: one per GPU, without GPUs one per processor core.
        threads: of each trial; None: the cores are divided among the processes, up to OMP_NUM_THREADS if it is set.
        gpus: of each trial; None: 1, or less if there are more processes than GPUs.
        on_gpus: whether trials compute on a GPU if there is one.

    Raises:
        ZeroshiftError: for a number of processes below 1, or if the GPUs do not suffice.
    """
    if processes is not None and processes < 1:
        raise ZeroshiftError("A benchmark needs at least one process.")
    available = torch.cuda.device_count() if on_gpus else 0
    if gpus is None:
        gpus = min(1.0, available / (processes or 1))
    fitting = int(available / gpus + 1e-6) if gpus else max(1, cores() // (threads or 1))
    number = processes or fitting
    if gpus and not 1 <= number <= fitting:
        raise ZeroshiftError(f"{max(1, number)} trials with {gpus:g} GPUs each do not fit the {available} GPUs here.")
    return LocalPool(number, threads or max(1, min(_thread_limit(), cores() // number)), gpus)


def _thread_limit() -> int:
    """OMP_NUM_THREADS if it is a number, or the number of cores. Threads that share a core are many times slower."""
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(limit) if limit.isdecimal() and int(limit) else cores()


class LocalPool:
    """The default executor: processes on this machine.

    Args:
        processes: packs of trials that run at the same time.
        threads: of each pack.
        gpus: GPUs of each pack, of which it sees no others. Below 1, packs share a GPU; 0: every pack sees all GPUs.
    """

    def __init__(self, processes: int, threads: int = 1, gpus: float = 0) -> None:
        self._processes, self._threads, self._gpus = processes, threads, gpus

    def run(self, job: TrialJob[One], packs: Iterable[Sequence[One]]) -> Iterator[tuple[One, str | None]]:
        """See `Executor.run`."""
        context: Any = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
        context.set_forkserver_preload(list(job.preload))
        if os.name == "posix":
            _start_server()
        slots, waiting = list(reversed(range(self._processes))), iter(packs)
        running: dict[int, tuple[Sequence[One], int, Any, Connection]] = {}
        try:
            while True:
                while slots and (following := list(itertools.islice(waiting, 1))):
                    receiver, sender = context.Pipe(duplex=False)
                    arguments = (sender, job, following[0], self._threads, self._devices(slots[-1]))
                    process = context.Process(target=_report, args=arguments, daemon=True)
                    process.start()
                    sender.close()
                    running[process.sentinel] = (following[0], slots.pop(), process, receiver)
                if not running:
                    return
                for sentinel in cast(list[int], multiprocessing.connection.wait(list(running))):
                    pack, slot, process, receiver = running.pop(sentinel)
                    process.join()
                    slots.append(slot)
                    finished = receiver.poll() and process.exitcode == 0
                    problems = receiver.recv() if finished else [_ended(process.exitcode)] * len(pack)
                    yield from zip(pack, problems, strict=True)
        finally:
            for _, _, process, _ in running.values():
                process.terminate()

    def _devices(self, slot: int) -> str | None:
        """CUDA_VISIBLE_DEVICES of the trials in a slot; None leaves it as it is."""
        if not self._gpus:
            return None
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        number = math.ceil(self._gpus)
        first = int(slot * self._gpus)
        names = visible.split(",") if visible else list(map(str, range(first + number)))
        return ",".join(names[first : first + number])


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


def _report(sender: Connection, job: TrialJob[One], pack: Sequence[One], threads: int, devices: str | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices  # read when CUDA starts
    sender.send(perform(job, pack, threads))


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
