"""One module a command, each with `main(arguments)`. Heavy imports stay inside the functions."""

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from zeroshift.errors import ZeroshiftError
from zeroshift.training.run_folder import RunFolder

__all__ = ["call", "default_output", "parse_numbers", "require_positive", "require_seed", "tracked"]

T = TypeVar("T")


def call(function: Callable[..., Any], name: str, arguments: Sequence[str], **options: Any) -> Any:
    """Calls `function` with command-line arguments; its docstring, up to "Args:", is the help text, line by line."""
    import tyro

    description = inspect.cleandoc(function.__doc__ or "").split("\nArgs:")[0].strip()
    return tyro.cli(function, prog=f"zeroshift {name}", description=description, args=list(arguments), **options)


def tracked(items: Iterable[T], total: int, what: str) -> Iterable[T]:
    """`items` with a progress bar on stderr, if that is a terminal; it disappears when it is full."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, what, total=total, transient=True, console=console, disable=not console.is_terminal)


def parse_numbers(text: str, what: str) -> list[float]:
    """Numbers from a text such as "0,0.5,1".

    Raises:
        ZeroshiftError: naming `what`, if they are none.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise ZeroshiftError(f"{what} must be numbers with commas between, such as 0,0.5,1, not {text!r}.")
    return numbers


def require_positive(**values: float) -> None:
    """Raises ZeroshiftError for the first value that is not above zero."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ZeroshiftError(f"--{name.replace('_', '-')} is {value}; it must be above zero.")


def require_seed(seed: int) -> None:
    """Raises ZeroshiftError for a seed below zero."""
    if seed < 0:
        raise ZeroshiftError(f"--seed is {seed}; it must be at least 0.")


def default_output(run: RunFolder, name: str, given: Path | None) -> Path:
    """`given`, or `name` in the run folder."""
    return run.path / name if given is None else given
