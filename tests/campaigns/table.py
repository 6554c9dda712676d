"""Tables of results in Markdown."""

from collections.abc import Sequence

__all__ = ["markdown"]


def markdown(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table with a last row of sums over the columns of numbers; the first column is text."""
    sums = [sum(cell for cell in column if isinstance(cell, int)) for column in list(zip(*rows, strict=True))[1:]]
    lines = [heads, ["---", *("---:" for _ in heads[1:])], *rows, ["all", *sums]]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
