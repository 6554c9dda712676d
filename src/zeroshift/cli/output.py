"""What commands print: text for people, or one JSON object for scripts (`--json`); `--quiet` leaves out the rest."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["HELP_ALL", "finish", "is_quiet", "note", "record", "show_result", "start", "wants_json"]

HELP_ALL = "--help-all"
_QUIET = ("--quiet", "-q")
_JSON = "--json"


@dataclass
class _Output:
    """How the current command prints."""

    quiet: bool = False
    json: bool = False
    values: dict[str, Any] = field(default_factory=dict)


_output = _Output()


def start(arguments: Sequence[str]) -> list[str]:
    """Begins a command: reads --quiet and --json, which every command has, and returns the other arguments."""
    global _output
    _output = _Output(any(option in arguments for option in _QUIET), _JSON in arguments)
    return [argument for argument in arguments if argument not in (*_QUIET, _JSON)]


def is_quiet() -> bool:
    """Whether progress and notes are left out."""
    return _output.quiet or _output.json


def wants_json() -> bool:
    """Whether results are printed as JSON."""
    return _output.json


def show_result(text: str, **values: Any) -> None:
    """Prints a result as text on stdout, or records its values for the JSON object (--json)."""
    if not _output.json:
        print(text)
    record(**values)


def record(**values: Any) -> None:
    """Adds values to the JSON object: numbers, paths, lists and dicts; a list is appended to an earlier one."""
    for name, value in values.items():
        earlier = _output.values.get(name)
        _output.values[name] = [*earlier, *value] if isinstance(earlier, list) and isinstance(value, list) else value


def note(text: str, *, stderr: bool = False) -> None:
    """Prints what helps a person but is no result, such as the next command; nothing with --quiet or --json."""
    if not is_quiet():
        print(text, file=sys.stderr if stderr else sys.stdout)


def finish(command: str) -> None:
    """Ends a command that succeeded: prints the JSON object."""
    if _output.json:
        values = {"command": command, **_output.values}
        print(json.dumps(values, indent=2, ensure_ascii=False, default=_plain))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else repr(value)
