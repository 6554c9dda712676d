"""What a campaign prints: progress on stderr, a table of results in Markdown and the problems on stdout."""

import sys
from collections.abc import Sequence

__all__ = ["markdown", "report", "show"]


def markdown(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table with a last row of sums over the columns of numbers; the first column is text."""
    sums = [sum(cell for cell in column if isinstance(cell, int)) for column in list(zip(*rows, strict=True))[1:]]
    lines = [heads, ["---", *("---:" for _ in heads[1:])], *rows, ["all", *sums]]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def show(line: str) -> None:
    """Prints progress."""
    print(line, file=sys.stderr, flush=True)


def report(table: str, problems: Sequence[str]) -> int:
    """Prints the results; returns the exit code."""
    print(table, *problems, sep="\n", flush=True)
    return int(bool(problems))
