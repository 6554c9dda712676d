"""What a running adaptation shows: stage, steps, loss, time left."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn

__all__ = ["Display"]

TITLES = {"invert": "inverting images", "prompts": "learning prompts", "adapt": "adapting"}
LINES = 10  # a stage, where the screen is a file


class Display:
    """A bar a stage on stderr; plain lines where stderr is no terminal. Use it as a context."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = Console(stderr=True, highlight=False) if console is None else console
        self._bars = Progress(
            TextColumn("{task.description:>16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeLeftColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Display":
        return self  # the bars start with the first step: models that load before may show bars of their own

    def __exit__(self, *_: Any) -> None:
        self._bars.stop()

    def update(self, stage: str, step: int, steps: int, losses: Mapping[str, float]) -> None:
        """`step` of `steps` steps of a stage are done; `losses` are those of the last one."""
        loss = f"loss {losses['loss']:.4f}" if "loss" in losses else ""
        title = TITLES.get(stage, stage)
        if not self._console.is_terminal:
            if step % max(1, steps // LINES) == 0 or step == steps:
                self._console.print(f"{title} {step}/{steps} {loss}", soft_wrap=True)
            return
        self._bars.start()
        if stage not in self._tasks:
            # a resumed stage starts where it stands, so that the time left is that of the steps still to come
            self._tasks[stage] = self._bars.add_task(title, total=steps, completed=step - 1, loss="")
        self._bars.update(self._tasks[stage], completed=step, loss=loss)
