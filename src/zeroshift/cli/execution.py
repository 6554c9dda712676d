"""How benchmarks run their trials: options that all benchmarks share, executors, and when the page is written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zeroshift.cli.arguments import read_conclusion, require_count, tracked
from zeroshift.cli.output import note
from zeroshift.errors import ZeroshiftError

if TYPE_CHECKING:
    from zeroshift.benchmark.executors import Executor, Work

__all__ = ["ExecutionOptions", "make_executor", "run_work"]


@dataclass(frozen=True)
class ExecutionOptions:
    """Options of the executor and of the page."""

    page: Path | None = None
    """Markdown file of the page; tables and images are written next to it. Default: OUT/benchmark.md."""
    conclusion: Path | None = None
    """Markdown file with introductory text for the page."""
    pages_only: bool = False
    """Run no trials; write the page from existing results."""
    processes: int | None = None
    """Trials that run at the same time. Default: one per GPU, without GPUs one per processor core; with Ray, as many
    as the cluster has room for."""
    executor: Literal["local", "ray"] = "local"
    """Runs trials in processes of this machine, or as tasks of Ray (extra "ray")."""
    address: str | None = None
    """Address of a running Ray cluster, such as HOST:6379 or auto. Default: Ray starts on this machine."""
    pack: int = 1
    """N: a process trains up to N trials of one method and seed in lockstep, with common source images. Such a pack
    counts as one trial for the resource options, and needs the memory of N target generators."""
    cpus_per_task: int | None = None
    """Processor cores and threads of each trial. Default: 1 with Ray; otherwise the cores are divided among the
    processes, up to OMP_NUM_THREADS if it is set."""
    gpus_per_task: float | None = None
    """GPUs of each trial; 0.5: two trials share a GPU. Default: 1 if there are GPUs, or less if there are more
    processes than GPUs; 0 in the miniature world, which computes on the CPU."""
    retries: int = 3
    """Times that Ray repeats a trial whose worker is lost."""
    shard: str | None = None
    """I/N: the command for machine I of N that share the folder OUT. It begins with its part of the trials, and then
    helps with those that no other machine has begun. The last one to end writes the page."""

    def introduction(self) -> str:
        """The text of the conclusion; empty without one.

        Raises:
            ZeroshiftError: if it cannot be read.
        """
        return "" if self.conclusion is None else read_conclusion(self.conclusion)


def make_executor(options: ExecutionOptions, *, on_gpus: bool) -> "Executor":
    """The executor of these options.

    Args:
        on_gpus: whether trials compute on a GPU if there is one.

    Raises:
        ZeroshiftError: for options that contradict each other.
    """
    from zeroshift.benchmark.processes import local_pool

    require_count(retries=options.retries)
    gpus = options.gpus_per_task
    counts = {"processes": options.processes, "cpus-per-task": options.cpus_per_task, "pack": options.pack}
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ZeroshiftError(f"--{name} is {value}; it must be at least 1.")
    if gpus is not None and not 0 <= gpus < 1 and not (gpus > 0 and float(gpus).is_integer()):
        raise ZeroshiftError(f"--gpus-per-task is {gpus}; it must be a whole number, or between 0 and 1.")
    if gpus and not on_gpus:
        raise ZeroshiftError("The benchmark in the miniature world computes on the CPU. Leave out --gpus-per-task.")
    if options.executor == "ray":
        from zeroshift.benchmark.ray_executor import RayExecutor

        return RayExecutor(
            options.address,
            cpus=options.cpus_per_task or 1,
            gpus=gpus if on_gpus else 0,
            retries=options.retries,
            limit=options.processes,
        )
    if options.address is not None:
        raise ZeroshiftError("--address is the address of a Ray cluster. Add --executor ray, or leave it out.")
    return local_pool(options.processes, options.cpus_per_task, gpus, on_gpus=on_gpus)


def run_work(
    work: "Work[Any]", options: ExecutionOptions, out: Path, write: Callable[[], None], *, on_gpus: bool
) -> None:
    """Runs the trials that are missing, and writes the page, unless other commands still run some of its trials.

    Args:
        out: folder of the trials.
        write: writes the page.
        on_gpus: see `make_executor`.

    Raises:
        ZeroshiftError: for wrong options, and after writing the page if a trial failed.
    """
    from zeroshift.benchmark.executors import parse_shard, run_shared

    executor = make_executor(options, on_gpus=on_gpus)
    shard = None if options.shard is None else parse_shard(options.shard)
    if shard is not None and work.again:
        raise ZeroshiftError("--again measures all trials once more, which only one command should do: omit --shard.")
    if options.pages_only:
        write()
        return
    outcome = run_shared(work, executor, out, shard, tracked, options.pack)
    if outcome.elsewhere:
        holders = "; ".join(f"{trial} ({holder})" for trial, holder in outcome.elsewhere.items())
        note(
            f"Other commands still run {len(outcome.elsewhere)} trials: {holders}. The last one to end writes the "
            "page; --pages-only writes it from the results that exist."
        )
    else:
        write()
    outcome.require_success()
