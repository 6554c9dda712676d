"""How the trials of a benchmark are run: the interface of executors, and what several commands on one folder share."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch

from zeroshift.core.batching import Track, untracked
from zeroshift.errors import ZeroshiftError
from zeroshift.io.claims import Claims

__all__ = ["Executor", "Shard", "SharedWork", "TrialJob", "Work", "parse_shard", "perform", "run_shared"]

One = TypeVar("One")


@dataclass(frozen=True)
class TrialJob(Generic[One]):
    """What an executor does with each trial, in a process of its own.

    Attributes:
        run: maps a trial to an error message, or None. A function of a module, or a partial of one: it is pickled.
        prepare: called first in every process; the command line sets its allocator options with it.
        preload: modules that every trial needs, which an executor may import once for all.
    """

    run: Callable[[One], str | None]
    prepare: Callable[[], object] | None = None
    preload: Sequence[str] = ()


class Executor(Protocol):
    """Runs trials somewhere. Results are files, so a trial returns only whether it failed."""

    def run(self, job: TrialJob[One], trials: Iterable[One]) -> Iterator[tuple[One, str | None]]:
        """Runs trials, and yields each with its error message, or None, when it ends.

        Each trial has its own process, so that its peak memory can be measured and its failure affects no other trial.

        Args:
            trials: read one by one, when there is room for another trial.
        """
        ...


def perform(job: TrialJob[One], trial: One, threads: int) -> str | None:
    """Runs a trial in the process of the caller with a number of threads."""
    torch.set_num_threads(threads)
    if job.prepare is not None:
        job.prepare()
    return job.run(trial)


@dataclass(frozen=True)
class Shard:
    """Part `number` (from 1) of `count`."""

    number: int
    count: int

    def order(self, trials: Sequence[One]) -> list[One]:
        """This part's trials, then those of the other parts from the end, so that a part that is done helps others."""
        mine = [index % self.count == self.number - 1 for index in range(len(trials))]
        others = [trial for trial, selected in zip(trials, mine, strict=True) if not selected]
        return [*(trial for trial, selected in zip(trials, mine, strict=True) if selected), *reversed(others)]


def parse_shard(text: str) -> Shard:
    """A part from "I/N".

    Raises:
        ZeroshiftError: for another form, or a number that is not among 1 to N.
    """
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ZeroshiftError(f"--shard is {text!r}; it must be I/N with I from 1 to N, such as 1/8.")
    return Shard(int(number), int(count))


@dataclass(frozen=True)
class Work(Generic[One]):
    """The trials of a benchmark, with results in a folder.

    Attributes:
        job: what is done with each of them.
        trials: all of them, in order.
        missing: those that have to run.
        record: the file that a finished trial has; the claim on it stands beside it.
        finished: whether a trial has its results now: other commands may have run it meanwhile.
        again: whether finished trials run, too.
    """

    job: TrialJob[One]
    trials: Sequence[One]
    missing: Sequence[One]
    record: Callable[[One], Path]
    finished: Callable[[One], bool]
    again: bool = False


class SharedWork(Generic[One]):
    """Trials that other commands, on this and other machines, may run as well: each is claimed before it runs.

    Args:
        work: the trials.
        claims: those of this process.
        shard: the part of the trials to begin with.

    Attributes:
        missing: the trials that have to run, in order.
        failed: the problem of each failed trial, here or elsewhere.
        elsewhere: the holder of each trial that another command still runs.
    """

    def __init__(self, work: Work[One], claims: Claims, shard: Shard | None = None) -> None:
        self._work, self._claims = work, claims
        trials = work.trials if shard is None else shard.order(work.trials)
        self.missing = [trial for trial in trials if trial in work.missing]
        self.failed: dict[str, str] = {}
        self.elsewhere: dict[str, str] = {}

    def run(self, executor: Executor) -> Iterator[One]:
        """Runs the trials that no other command runs, and yields each when it ends.

        Those of commands that ended meanwhile without finishing them run last.
        """
        waiting, left = self.missing, list[One]()
        while waiting:
            skipped: list[One] = []
            for trial, problem in executor.run(self._work.job, self._claimed(waiting, skipped)):
                self._end(trial, problem)
                yield trial
            # All of them again: others may have ended during this round. One command must see that all have ended.
            self.elsewhere.clear()
            states = [(trial, self._left_to_others(trial)) for trial in (*left, *skipped)]
            left = [trial for trial, left_to_others in states if left_to_others]
            waiting = [trial for trial, left_to_others in states if not left_to_others]
        self._tidy()

    def require_success(self) -> None:
        """Raises ZeroshiftError if a trial failed, with all reasons."""
        if self.failed:
            problems = " ".join(f"{trial}: {problem.rstrip('.')}." for trial, problem in self.failed.items())
            raise ZeroshiftError(f"{len(self.failed)} trials failed; the others are kept. {problems}")

    def _claimed(self, trials: Sequence[One], skipped: list[One]) -> Iterator[One]:
        """Claims trials one by one; those that others have claimed are added to `skipped`."""
        for trial in trials:
            path = self._work.record(trial)
            if not self._claims.take(path):
                skipped.append(trial)
            elif self._is_done(trial):  # another command has just finished it
                self._claims.release(path)
            else:
                yield trial

    def _end(self, trial: One, problem: str | None) -> None:
        path = self._work.record(trial)
        if problem is None and not self._work.finished(trial):
            problem = f"its results are not in {path.parent.absolute()}: all machines must share this folder"
        self._claims.release(path, problem)
        if problem is not None:
            self.failed[str(trial)] = problem

    def _tidy(self) -> None:
        """Removes the claims of commands that were killed when they had just finished a trial."""
        for trial in self._work.trials:
            path = self._work.record(trial)
            if self._claims.last(path) is not None and self._work.finished(trial) and self._claims.take(path):
                self._claims.release(path)

    def _is_done(self, trial: One) -> bool:
        return not self._work.again and self._work.finished(trial)

    def _left_to_others(self, trial: One) -> bool:
        """Whether another command has finished a trial, runs it, or has failed with it since this one began."""
        if self._is_done(trial):  # a claim on it is that of a command that has not seen this yet
            return True
        last = self._claims.last(self._work.record(trial))
        if last is not None and last.alive:
            self.elsewhere[str(trial)] = last.holder
        elif last is not None and last.blocks:
            self.failed[str(trial)] = f"{last.problem} (on {last.holder})"
        return last is not None and last.blocks


def run_shared(
    work: Work[One], executor: Executor, out: Path, shard: Shard | None = None, track: Track[One] = untracked
) -> SharedWork[One]:
    """Runs the trials that are missing and that no other command runs.

    Args:
        out: folder of the trials.
        shard: the part of the trials to begin with.
        track: shows progress.
    """
    with Claims(out) as claims:
        shared = SharedWork(work, claims, shard)
        for _ in track(shared.run(executor), len(shared.missing), "Adapting"):
            pass
    return shared
