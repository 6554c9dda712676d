"""Progress on the terminal: stages of a run, and downloads."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

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

from zeroshift.cli.output import is_quiet

if TYPE_CHECKING:
    from zeroshift.training.estimate import Estimate

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
            disable=is_quiet() or not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Display":
        return self  # the bars start with the first step: earlier downloads have their own

    def __exit__(self, *_: Any) -> None:
        self._bars.stop()

    def starts(self, steps: Sequence[int], estimate: "Estimate") -> None:
        """Shows how long the run takes and how much memory it needs, from trial steps."""
        if is_quiet():
            return
        place = " on the GPU" if estimate.on_gpu else ""
        memory = "" if estimate.bytes is None else f", {estimate.bytes / 1e9:.1f} GB of memory{place}"
        text = f"Estimate: {_duration(estimate.seconds)} for {' + '.join(map(str, steps))} steps{memory}"
        self._console.print(text, markup=False, soft_wrap=True)

    def update(self, stage: str, step: int, steps: int, losses: Mapping[str, float]) -> None:
        """Shows that `step` of `steps` steps of a stage are done; `losses` are those of the last step."""
        if is_quiet():
            return
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


def _duration(seconds: float) -> str:
    """A duration in two units at most: "45 s", "2 min 10 s", "3 h 5 min"."""
    whole = max(1, round(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


@contextlib.contextmanager
def download_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar on stderr for `zeroshift.io.download_progress.set_progress`."""
    console = Console(stderr=True, highlight=False)
    if is_quiet():
        yield lambda done, total: None
        return
    if not console.is_terminal:
        console.print(f"Downloading {name}", markup=False, soft_wrap=True)
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeLeftColumn())
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
