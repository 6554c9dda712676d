"""Ctrl-C and the signals that stop a process: one ends the work in order, a further one ends the process at once."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["RESUME_HINT", "SIGNALS", "handler_after", "interrupt", "interrupts", "raises_interrupt"]

# Ctrl-C; the stop of a cluster or `kill`; the end of the terminal session.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_EXIT_CODE = 130

RESUME_HINT = "Run the same command again to resume."
"""Message of a KeyboardInterrupt if the interrupted work can be resumed."""


def interrupt(number: int, frame: FrameType | None) -> None:
    """A signal handler that raises KeyboardInterrupt. Later signals then end the process without a traceback.

    Everything that is written at that time is written atomically, so nothing is damaged.
    """
    for other in SIGNALS:
        if raises_interrupt(other):
            signal.signal(other, _exit)
    raise KeyboardInterrupt


def _exit(number: int, frame: FrameType | None) -> None:
    show_cursor = b"\x1b[?25h" if sys.stderr is not None and sys.stderr.isatty() else b""  # progress bars hide it
    with contextlib.suppress(OSError):
        os.write(2, show_cursor + b"\nStopped.\n")
    os._exit(_EXIT_CODE)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(_EXIT_CODE)


def handler_after(handler: Any) -> Any:
    """The handler to restore after an interrupt: instead of `interrupt`, one that ends the process at once."""
    return _exit if handler is interrupt else handler


def raises_interrupt(number: int) -> bool:
    """Whether a signal raises KeyboardInterrupt now, and so may be made to wait for the end of a step."""
    return signal.getsignal(number) in (interrupt, signal.default_int_handler)


@contextlib.contextmanager
def interrupts(restore: bool = True) -> Iterator[None]:
    """Makes Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt in the body. Signals that are ignored stay ignored.

    Args:
        restore: whether the earlier handlers return after the body; False for a program that ends with it.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield
        return
    before = {
        number: signal.signal(number, interrupt)
        for number in SIGNALS
        if signal.getsignal(number) not in (signal.SIG_IGN, None)  # such as SIGHUP under nohup
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            # Without a traceback, or another exit code, while the interpreter ends.
            last = signal.SIG_IGN if number == signal.SIGINT else _end
            signal.signal(number, handler if restore else last)
