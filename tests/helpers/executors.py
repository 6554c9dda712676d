"""An executor for tests."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from zeroshift.benchmark.executors import TrialJob

One = TypeVar("One")


class Here:
    """Runs trials in the process of the test, and lists them."""

    def __init__(self) -> None:
        self.done: list[object] = []

    def run(self, job: TrialJob[One], packs: Iterable[Sequence[One]]) -> Iterator[tuple[One, str | None]]:
        for pack in packs:
            self.done.extend(pack)
            yield from zip(pack, job.run(pack), strict=True)
