"""One module a command, each with `main(arguments)`. Heavy imports stay inside the functions."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ZeroshiftError
from ..runs import RunFolder

if TYPE_CHECKING:
    from ..generators.base import Generator

__all__ = ["call", "load_source_and_target", "parse_numbers"]


def call(function: Callable[..., Any], name: str, arguments: Sequence[str], **options: Any) -> Any:
    """Calls `function` with command-line arguments; its docstring, up to "Args:", is the help text, line by line."""
    import tyro

    description = inspect.cleandoc(function.__doc__ or "").split("\nArgs:")[0].strip()
    return tyro.cli(function, prog=f"zeroshift {name}", description=description, args=list(arguments), **options)


def load_source_and_target(run: RunFolder) -> "tuple[Generator, Generator]":
    """The generator that a finished run started from and the one that it delivered, on the best device there is.

    Raises:
        ZeroshiftError: if the run is not finished, or a file of it cannot be read.
    """
    from accelerate import PartialState

    from ..generators import load_generator

    if not run.finished:
        raise ZeroshiftError(
            f"The run in {run.path} is not finished: repeat its `zeroshift adapt` command to resume it."
        )
    device = PartialState().device
    source, target = (load_generator(name, device=device) for name in (run.config.generator, str(run.generator_path)))
    return source.eval(), target.eval()


def parse_numbers(text: str, what: str) -> list[float]:
    """Numbers from a text such as "0,0.5,1".

    Raises:
        ZeroshiftError: naming `what`, if they are none.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ZeroshiftError(f"{what} must be numbers with commas between, such as 0,0.5,1, not {text!r}.") from None


def require_positive(**values: float) -> None:
    """Raises ZeroshiftError for the first value that is not above zero."""
    for name, value in values.items():
        if not value > 0:
            raise ZeroshiftError(f"--{name.replace('_', '-')} is {value}; it must be above zero.")


def default_output(run: RunFolder, name: str, given: Path | None) -> Path:
    """`given`, or `name` in the run folder."""
    return run.path / name if given is None else given
