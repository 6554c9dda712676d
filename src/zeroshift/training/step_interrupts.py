"""Lets Ctrl-C and other signals wait for the end of a training step."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from zeroshift.core.distributed import Distributed
from zeroshift.core.interrupts import SIGNALS, handler_after, raises_interrupt

__all__ = ["StopRequest", "interrupts_at_step_ends"]


class StopRequest:
    """Remembers an interrupt request; called between steps, it raises KeyboardInterrupt in all processes."""

    def __init__(self) -> None:
        self.requested = False
        self.within_step = False  # a second interrupt did not wait for the end of the step
        self.before: dict[int, Any] = {}  # handlers by signal, which raise KeyboardInterrupt

    def __call__(self, distributed: Distributed) -> None:
        if distributed.any(self.requested):
            raise KeyboardInterrupt

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            self.within_step = True
            self.before[number](number, frame)
        self.requested = True


@contextlib.contextmanager
def interrupts_at_step_ends() -> Iterator[StopRequest]:
    """Lets Ctrl-C wait for the end of a step, and other signals if they raise KeyboardInterrupt as well."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield stop
        return
    for number in filter(raises_interrupt, SIGNALS):
        stop.before[number] = signal.signal(number, stop.handle)
    try:
        yield stop
    finally:
        for number, handler in stop.before.items():
            if signal.getsignal(number) == stop.handle:  # else a second interrupt is being handled
                signal.signal(number, handler_after(handler) if stop.requested else handler)
