"""Helpers for commands. Each command is a module with `main(arguments)`; heavy imports stay inside its functions."""

import functools
import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from zeroshift.cli.output import HELP_ALL, is_quiet
from zeroshift.errors import ZeroshiftError
from zeroshift.training.run_folder import RunFolder

__all__ = [
    "call", "default_output", "old_union", "parse_numbers", "plain", "read_conclusion", "require_count",
    "require_positive", "require_seed", "tracked", "warn_no_truncation",
]  # fmt: skip

T = TypeVar("T")


def call(
    function: Callable[..., Any], name: str, arguments: Sequence[str], inserted: Mapping[str, str] | None = None
) -> Any:
    """Calls `function` with command-line arguments.

    Its docstring up to "Args:" is the help text. An option whose default is None describes the default.

    Args:
        inserted: texts that replace markers in the help text.
    """
    import tyro

    arguments = ["--help" if argument == HELP_ALL else argument for argument in arguments]
    description = inspect.cleandoc(function.__doc__ or "").split("\nArgs:")[0].strip()
    for marker, text in (inserted or {}).items():
        description = description.replace(marker, text)
    return tyro.cli(_plain_help(function), prog=f"zeroshift {name}", description=description, args=arguments)


def _plain_help(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with a help page that shows INT instead of {None}|INT, and no empty defaults."""
    import tyro

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    signature, kinds = inspect.signature(function), get_type_hints(function, include_extras=True)
    for name, parameter in signature.parameters.items():
        kinds[name] = Annotated[old_union(kinds[name]), tyro.conf.arg(**plain(kinds[name], parameter.default))]
    del wrapper.__wrapped__  # tyro would read the annotations there
    wrapper.__annotations__ = kinds
    wrapper.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[each.replace(annotation=kinds[name]) for name, each in signature.parameters.items()]
    )
    return wrapper


def old_union(kind: Any) -> Any:
    """`X | None` as `Optional[X]`, which tyro checks without importing typeguard (60 ms)."""
    return Union[get_args(kind)] if isinstance(kind, UnionType) else kind  # noqa: UP007


def plain(kind: Any, default: Any) -> dict[str, Any]:
    """Arguments for `tyro.conf.arg`: no hint for an empty default, which the description of the option explains."""
    if default is None:
        return {"help_behavior_hint": "", "metavar": _metavar(kind)}
    optional = default is inspect.Parameter.empty and get_origin(_bare(kind)) is tuple  # a list of words, maybe empty
    return {"help_behavior_hint": ""} if optional or default in ((), "") else {}


def _bare(kind: Any) -> Any:
    """A type without its annotations."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _metavar(kind: Any) -> str | None:
    """How the value of an option of type `kind | None` is shown; None: as tyro does."""
    if get_origin(kind) is Annotated:  # it has a form of its own
        return None
    values = [one for one in get_args(kind) if one is not type(None)]
    if len(values) != 1:
        return None
    if get_origin(values[0]) is Literal:
        return "|".join(map(str, get_args(values[0])))
    return {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}.get(values[0])


def tracked(items: Iterable[T], total: int, what: str) -> Iterable[T]:
    """`items` with a progress bar on stderr if that is a terminal; the bar disappears at the end."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    silent = is_quiet() or not console.is_terminal
    return track(items, what, total=total, transient=True, console=console, disable=silent)


def parse_numbers(text: str, what: str) -> list[float]:
    """Numbers from a string such as "0,0.5,1".

    Raises:
        ZeroshiftError: if the string has another form; the message begins with `what`.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise ZeroshiftError(f"{what} must be numbers separated by commas, such as 0,0.5,1, not {text!r}.")
    return numbers


def require_positive(**values: float | None) -> None:
    """Raises ZeroshiftError for the first value that is not positive; None, for a default, is allowed."""
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise ZeroshiftError(f"--{name.replace('_', '-')} is {value}; it must be positive.")


def require_count(**values: int | None) -> None:
    """Raises ZeroshiftError for the first value below 0; None, for a default, is allowed."""
    for name, value in values.items():
        if value is not None and value < 0:
            raise ZeroshiftError(f"--{name.replace('_', '-')} is {value}; it must be at least 0.")


def require_seed(seed: int) -> None:
    """Raises ZeroshiftError for a negative seed."""
    if seed < 0:
        raise ZeroshiftError(f"--seed is {seed}; it must be at least 0.")


def warn_no_truncation(run: RunFolder, truncation_psi: float | None) -> None:
    """Warns if a truncation is given for a run whose generator family has none."""
    from zeroshift.generators.registry import FAMILIES

    family = run.config.family
    if truncation_psi is not None and family and "truncation_psi" in FAMILIES[family].unused_settings:
        warnings.warn(f"A {family} generator has no truncation. --truncation-psi is ignored.", stacklevel=2)


def default_output(run: RunFolder, name: str, out: Path | None) -> Path:
    """`out`, or if it is None, `name` in the run folder."""
    return run.path / name if out is None else out


def read_conclusion(path: Path) -> str:
    """The text of a Markdown file for a benchmark's page.

    Raises:
        ZeroshiftError: if it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ZeroshiftError(f"The conclusion {path} cannot be read ({error}). Give a Markdown file.") from error
