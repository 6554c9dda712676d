"""Names of numbered files: samples, previews and pairs count from 0, with eight digits, in all commands."""

import re

__all__ = ["is_numbered", "numbered"]

_NAME = re.compile(r"[0-9]{4,8}|[1-9][0-9]{8,}")  # versions before 0.2 wrote four to eight digits


def numbered(number: int) -> str:
    """The name of a file with a number, without its suffix: "00000012"."""
    return f"{number:08d}"


def is_numbered(stem: str) -> bool:
    """Whether a name without its suffix is that of a numbered file, of this or an earlier version."""
    return _NAME.fullmatch(stem) is not None
