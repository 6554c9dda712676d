"""How the trials of a benchmark are run: the interface of executors, and what several commands on one folder share."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch

from zeroshift.core.batching import Track, untracked
from zeroshift.errors import ZeroshiftError
from zeroshift.io.claims import Claims

__all__ = [
    "Executor", "Shard", "SharedWork", "TrialJob", "Work", "attempt", "parse_shard", "perform", "problem_of",
    "run_shared",
]  # fmt: skip

One = TypeVar("One")
T = TypeVar("T")


@dataclass(frozen=True)
class TrialJob(Generic[One]):
    """What an executor does with the trials of a pack, in a process of its own.

    Attributes:
        run: maps trials to an error message, or None, for each. A function of a module, or a partial of one: it is
            pickled.
        prepare: called first in every process; the command line sets its allocator options with it.
        preload: modules that every trial needs, which an executor may import once for all.
    """

    run: Callable[[Sequence[One]], Sequence[str | None]]
    prepare: Callable[[], object] | None = None
    preload: Sequence[str] = ()


class Executor(Protocol):
    """Runs trials somewhere. Results are files, so a trial returns only whether it failed."""

    def run(self, job: TrialJob[One], packs: Iterable[Sequence[One]]) -> Iterator[tuple[One, str | None]]:
        """Runs trials, and yields each with its error message, or None, when its pack ends.

        Each pack has its own process, so that its peak memory can be measured and its end affects no other one.

        Args:
            packs: one or more trials that run together; read one by one, when there is room for another pack.
        """
        ...


def perform(job: TrialJob[One], pack: Sequence[One], threads: int) -> Sequence[str | None]:
    """Runs the trials of a pack in the process of the caller with a number of threads."""
    torch.set_num_threads(threads)
    if job.prepare is not None:
        job.prepare()
    return job.run(pack)


def attempt(function: Callable[[], T]) -> T | Exception:
    """The result of a function, or the error that it raised: the other trials of a pack continue after any error."""
    try:
        return function()
    except Exception as error:
        return error


def problem_of(outcome: object) -> str | None:
    """The message of an outcome that is an error, else None."""
    if isinstance(outcome, ZeroshiftError):
        return str(outcome)
    return f"{type(outcome).__name__}: {outcome}" if isinstance(outcome, Exception) else None


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
        job: what is done with them.
        trials: all of them, in order.
        missing: those that have to run.
        record: the file that a finished trial has; the claim on it stands beside it.
        finished: whether a trial has its results now: other commands may have run it meanwhile.
        group: trials with the same value can be in one pack.
        again: whether finished trials run, too.
    """

    job: TrialJob[One]
    trials: Sequence[One]
    missing: Sequence[One]
    record: Callable[[One], Path]
    finished: Callable[[One], bool]
    group: Callable[[One], Hashable]
    again: bool = False

    def packs(self, trials: Sequence[One], size: int) -> list[list[One]]:
        """The trials in packs of at most `size`, in the order of their first trials."""
        packs: list[list[One]] = []
        latest: dict[Hashable, list[One]] = {}  # by group
        for trial in trials:
            pack = latest.get(self.group(trial))
            if pack is None or len(pack) == size:
                pack = latest[self.group(trial)] = []
                packs.append(pack)
            pack.append(trial)
        return packs


class SharedWork(Generic[One]):
    """Trials that other commands, on this and other machines, may run as well: each is claimed before it runs.

    Args:
        work: the trials.
        claims: those of this process.
        shard: the part of the packs to begin with.
        pack: trials in a pack, at most.

    Attributes:
        missing: the trials that have to run, in order.
        failed: the problem of each failed trial, here or elsewhere.
        elsewhere: the holder of each trial that another command still runs.
    """

    def __init__(self, work: Work[One], claims: Claims, shard: Shard | None = None, pack: int = 1) -> None:
        self._work, self._claims, self._pack = work, claims, pack
        packs = work.packs(work.trials, pack)
        ordered = packs if shard is None else shard.order(packs)
        self.missing = [trial for each in ordered for trial in each if trial in work.missing]
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

    def _claimed(self, trials: Sequence[One], skipped: list[One]) -> Iterator[list[One]]:
        """Claims trials pack by pack; those that others have claimed are added to `skipped`."""
        for pack in self._work.packs(trials, self._pack):
            if claimed := [trial for trial in pack if self._claim(trial, skipped)]:
                yield claimed

    def _claim(self, trial: One, skipped: list[One]) -> bool:
        """Claims a trial; adds it to `skipped` if others have claimed it."""
        path = self._work.record(trial)
        if not self._claims.take(path):
            skipped.append(trial)
            return False
        if self._is_done(trial):  # another command has just finished it
            self._claims.release(path)
            return False
        return True

    def _end(self, trial: One, problem: str | None) -> None:
        path, finished = self._work.record(trial), self._work.finished(trial)
        if problem is None and not finished:
            problem = f"its results are not in {path.parent.absolute()}: all machines must share this folder"
        elif finished and not self._work.again:  # the process of its pack was lost after this trial
            problem = None
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
    work: Work[One],
    executor: Executor,
    out: Path,
    shard: Shard | None = None,
    track: Track[One] = untracked,
    pack: int = 1,
) -> SharedWork[One]:
    """Runs the trials that are missing and that no other command runs.

    Args:
        out: folder of the trials.
        shard: the part of the packs to begin with.
        track: shows progress.
        pack: trials in a pack, at most.
    """
    with Claims(out) as claims:
        shared = SharedWork(work, claims, shard, pack)
        for _ in track(shared.run(executor), len(shared.missing), "Adapting"):
            pass
    return shared
