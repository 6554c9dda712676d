"""Progress and previews in place, for notebooks: `zeroshift.LiveView`."""

import sys
import time
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any, TypeVar

import torch
from torch import Tensor

from zeroshift.inversion.inverter import InversionProgress
from zeroshift.io.images import data_uri, make_grid
from zeroshift.training.callbacks import StepEvent

__all__ = ["LiveView"]

T = TypeVar("T")
_REFRESH = 0.2  # seconds between two updates of the numbers
_TITLES = {"optimize": "Searching codes", "tune": "Tuning weights", "done": "Inverted photos"}  # of an inversion


class _Html:
    """Text that a notebook shows as HTML."""

    def __init__(self, text: str, html: str) -> None:
        self._text, self._html = text, html

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return self._html


class _Place:
    """An output of a notebook cell that is replaced in place. Elsewhere, its text is a line on stderr."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str, html: str) -> None:
        if not _in_notebook():
            print(text, file=sys.stderr)
        elif self._handle is None:
            from IPython import display

            show: Any = display.display
            self._handle = show(_Html(text, html), display_id=True)
        else:
            self._handle.update(_Html(text, html))


class LiveView:
    """Shows the progress of a run in a notebook: a bar per stage, the loss, and pictures that change in place.

    It is a callback of `adapt`, a `progress` of `invert`, `translate` and `interpolate`, and `track` is that of
    `evaluate` and `compare_methods`. Make a new one for each call. Outside a notebook it prints a line whenever it
    would draw a picture.

    Args:
        every: steps between two pictures. The first is drawn before the first step, the last one after the last step.
        num: samples in a picture; the source is above the adapted generator.

    Example::

        adapt(preset("miniature", target="zombie"), "runs/zombie", callbacks=[LiveView()])
    """

    def __init__(self, every: int = 20, num: int = 6) -> None:
        self.every, self.num = every, num
        self._bars: dict[str, _Bar] = {}
        self._picture = _Place()

    def __call__(self, event: StepEvent | InversionProgress) -> None:
        """Shows a step."""
        title = event.title if isinstance(event, StepEvent) else _inversion_title(event)
        loss = f"loss {event.losses['loss']:.4f}" if isinstance(event, StepEvent) and "loss" in event.losses else ""
        due = event.step % self.every == 0 or event.step == event.steps
        bar = self._bars.setdefault(title, _Bar(title, event.step))
        bar.show(event.step, event.steps, loss, force=due)
        if due and _in_notebook() and (images := self._images(event)) is not None:
            picture = data_uri(make_grid(images, columns=min(len(images), self.num)), lossy=True)
            self._picture.show(f"step {event.step}", f'<img src="{picture}" alt="step {event.step}">')

    def track(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """The items, with a bar: the `track` of `evaluate` and `compare_methods`."""
        bar = _Bar(what, 0)
        for number, item in enumerate(items):
            bar.show(number, total, "", force=number == 0)
            yield item
        bar.show(total, total, "", force=True)

    def _images(self, event: StepEvent | InversionProgress) -> Tensor | None:
        """What to draw after a step; None if the pictures have not changed."""
        if isinstance(event, InversionProgress):
            return event.images
        if event.step and event.stage != "adapt":  # earlier stages do not change the generator
            return None
        return torch.cat(event.images(self.num))


class _Bar:
    """A line with a progress bar."""

    def __init__(self, title: str, first: int) -> None:
        self._title, self._first = title, first
        self._place, self._began, self._shown = _Place(), time.monotonic(), -_REFRESH

    def show(self, step: int, steps: int, note: str, *, force: bool) -> None:
        """Shows that `step` of `steps` steps are done, unless the line was changed a moment ago."""
        now = time.monotonic()
        if not force and (now - self._shown < _REFRESH or not _in_notebook()):
            return
        self._shown = now
        elapsed, done = now - self._began, step - self._first
        left = f", {elapsed / done * (steps - step):.0f} s left" if done > 0 and step < steps else ""
        facts = "  ".join(part for part in (f"{step}/{steps}", note, f"{elapsed:.0f} s{left}") if part)
        bar = f'<progress value="{step}" max="{max(steps, 1)}" style="width: 12em"></progress>'
        title = escape(self._title)
        self._place.show(
            f"{self._title} {facts}",
            f'<div><span style="display: inline-block; min-width: 16em">{title}</span> {bar} {escape(facts)}</div>',
        )


def _inversion_title(event: InversionProgress) -> str:
    """Stage and photos of a step."""
    if event.stage == "done":
        return _TITLES[event.stage]
    numbers = ", ".join(str(number + 1) for number in event.photos)
    return f"{_TITLES[event.stage]}, photo{'s' if len(event.photos) > 1 else ''} {numbers}"


def _in_notebook() -> bool:
    """Whether the program runs in the kernel of a notebook."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return shell is not None and hasattr(shell, "kernel")
