"""How downloads report their progress. It imports no network code, so that commands can set it at once."""

import contextlib
from collections.abc import Callable

__all__ = ["Progress", "ProgressFactory", "set_progress", "show_progress"]

Progress = Callable[[int, int | None], None]
"""Called with the bytes that have arrived and the total, None if unknown."""
ProgressFactory = Callable[[str], contextlib.AbstractContextManager[Progress]]
"""Makes a Progress for a file name; the context lasts as long as the download."""


def _silent(name: str) -> contextlib.AbstractContextManager[Progress]:
    return contextlib.nullcontext(lambda done, total: None)


_factory: ProgressFactory = _silent


def set_progress(factory: ProgressFactory | None) -> None:
    """Sets how downloads report progress if no callback is passed; None, the initial value: no reports."""
    global _factory
    _factory = factory or _silent


def show_progress(name: str) -> contextlib.AbstractContextManager[Progress]:
    """The progress of a download, as set."""
    return _factory(name)
