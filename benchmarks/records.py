"""Writes what a benchmark script measured."""

import json
from pathlib import Path
from typing import Any

from zeroshift.io.atomic import atomic_write

__all__ = ["save_json"]


def save_json(path: Path, values: dict[str, Any]) -> None:
    """Writes the values as JSON, in a folder that is made if needed; an interrupted write leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
