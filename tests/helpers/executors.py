"""An executor for tests."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from zeroshift.benchmark.executors import TrialJob

One = TypeVar("One")


class Here:
    """Runs trials in the process of the test, and lists them."""

    def __init__(self) -> None:
        self.done: list[object] = []

    def run(self, job: TrialJob[One], trials: Iterable[One]) -> Iterator[tuple[One, str | None]]:
        for trial in trials:
            self.done.append(trial)
            yield trial, job.run(trial)
