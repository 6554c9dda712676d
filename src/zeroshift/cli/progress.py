"""Progress on the terminal: stages of a run, and downloads."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.progress import TimeRemainingColumn as TimeLeftColumn

__all__ = ["Display", "download_bar"]

TITLES = {"invert": "inverting images", "prompts": "learning prompts", "adapt": "adapting"}
LINES = 10  # for each stage, if stderr is not a terminal


class Display:
    """A context that shows a progress bar for each stage on stderr, or plain lines if that is not a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = Console(stderr=True, highlight=False) if console is None else console
        self._bars = Progress(
            TextColumn("{task.description:>16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(),
            TextColumn("elapsed,"),
            TimeLeftColumn(),
            TextColumn("left"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Display":
        return self  # the bars start with the first step: earlier downloads have their own

    def __exit__(self, *_: Any) -> None:
        self._bars.stop()

    def update(self, stage: str, step: int, steps: int, losses: Mapping[str, float]) -> None:
        """Shows that `step` of `steps` steps of a stage are done; `losses` are those of the last step."""
        loss = f"loss {losses['loss']:.4f}" if "loss" in losses else ""
        title = TITLES.get(stage, stage)
        if not self._console.is_terminal:
            if step % max(1, steps // LINES) == 0 or step == steps:
                self._console.print(f"{title} {step}/{steps} {loss}", soft_wrap=True)
            return
        self._bars.start()
        if stage not in self._tasks:
            # a resumed stage starts with the steps already done, so that the estimate counts new steps only
            self._tasks[stage] = self._bars.add_task(title, total=steps, completed=step - 1, loss="")
        self._bars.update(self._tasks[stage], completed=step, loss=loss)


@contextlib.contextmanager
def download_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on stderr for `zeroshift.io.downloads.set_progress`."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeLeftColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
