"""Reads files of JSON lines. Lines that are damaged do not stop it: they are skipped, counted and reported."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zeroshift.errors import ZeroshiftError

__all__ = ["read_records"]

_PADDING = b"\0 \t\r"  # a power failure leaves blocks of NUL bytes, also before a good record


def _anything(record: dict[str, Any]) -> bool:
    return True


def read_records(path: Path, fits: Callable[[dict[str, Any]], bool] = _anything) -> list[dict[str, Any]]:
    """The records of a file of JSON lines, none if it does not exist. An incomplete last line is ignored.

    Lines that are blank, not UTF-8, not a JSON object or do not fit are skipped; a warning states their number and the
    first of them.

    Args:
        fits: whether a record has the fields of this file, in their types.

    Raises:
        ZeroshiftError: if the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ZeroshiftError(f"{path} cannot be read: {error.strerror or error}.") from error
    records: list[dict[str, Any]] = []
    broken: list[int] = []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        record = _parse(line.strip(_PADDING))
        if record is not None and fits(record):
            records.append(record)
        if record is None or not fits(record) or line.startswith(b"\0"):
            broken.append(number)
    if broken:
        lines = f"{len(broken)} damaged line{'s' if len(broken) > 1 else ''}"
        warnings.warn(f"{path} has {lines} (line {broken[0]}), left out here. The others are used.", stacklevel=2)
    return records


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):  # also broken UTF-8, and numbers with thousands of digits
        return None
    return record if isinstance(record, dict) else None
