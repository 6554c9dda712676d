"""Reads JSON that others wrote: limits on size and depth before parsing, schemas after it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zeroshift.errors import ZeroshiftError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

__all__ = ["MAX_JSON_BYTES", "first_line", "matches", "parse_json", "read_json"]

MAX_JSON_BYTES = 16 * 2**20
_MAX_DEPTH = 64  # of nested lists and objects; the files we know have fewer than ten levels
_MAX_SHOWN = 80  # characters of a foreign value in a message

Model = TypeVar("Model", bound="BaseModel")


def read_json(path: str | Path, limit: int = MAX_JSON_BYTES) -> Any:
    """The content of a JSON file.

    Args:
        limit: largest accepted size of the file in bytes.

    Raises:
        ZeroshiftError: if the file does not exist, cannot be read, is too large, or is not valid JSON.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError as error:
        raise ZeroshiftError(f"There is no file {path}. Check the path.") from error
    except OSError as error:
        raise ZeroshiftError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(content) > limit:
        raise ZeroshiftError(f"{path} is larger than {limit / 2**20:.0f} MiB, too large for a file of this kind.")
    return parse_json(content, str(path))


def parse_json(content: bytes | str, name: str) -> Any:
    """The value of a JSON text.

    Args:
        name: what the text is, for messages: a file name, or "the description in FILE".

    Raises:
        ZeroshiftError: if it is not valid UTF-8 or JSON, or is nested more than 64 levels deep.
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        if _depth(text) > _MAX_DEPTH:
            raise ZeroshiftError(f"{name} is nested more than {_MAX_DEPTH} levels deep, which no such file needs.")
        return json.loads(text)
    except UnicodeDecodeError as error:
        raise ZeroshiftError(f"{name} is not text in UTF-8 (byte {error.start}).") from error
    except ValueError as error:  # also numbers with thousands of digits
        raise ZeroshiftError(f"{name} is not valid JSON ({first_line(error)}).") from error


def _depth(text: str) -> int:
    """Greatest depth of nested brackets outside strings."""
    depth = deepest = 0
    in_string = escaped = False
    for char in text:
        if in_string:
            in_string = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def matches(model: type[Model], value: Any, name: str) -> Model:
    """A foreign value checked against a pydantic model, which states types, ranges, lengths and counts.

    Args:
        name: what the value is, for messages: a file name, or "the description in FILE".

    Raises:
        ZeroshiftError: naming the first field that does not match, its value and what was expected.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ZeroshiftError(f"{name} does not match: {_describe(error)}.") from error


def _describe(error: "ValidationError") -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    place = _join(first["loc"])
    message = first["msg"][:1].lower() + first["msg"][1:]
    if first["type"] == "missing":
        return f"{place} is missing"
    shown = repr(first["input"])
    shown = shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + "…"
    return f"{place} is {shown} ({message})" if place else message


def _join(parts: Iterable[int | str]) -> str:
    """A path in a JSON value: down_block_types[2], layers.0.name."""
    joined = ""
    for part in parts:
        joined += f"[{part}]" if isinstance(part, int) else f".{part:.{_MAX_SHOWN}}"
    return joined.lstrip(".")


def first_line(error: BaseException) -> str:
    """The first line of a library's message, at most 300 characters, or the exception's name."""
    lines = str(error).strip().splitlines()
    line = lines[0].strip().rstrip(".") if lines else type(error).__name__
    return line if len(line) <= 300 else line[:300] + "…"
