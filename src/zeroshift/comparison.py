"""Results of several runs side by side: runs that differ only in their seed become one row, mean and spread."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .runs import RunFolder, flat

if TYPE_CHECKING:
    from .evaluation import Result

__all__ = ["ARROWS", "Row", "as_json", "compare", "heading", "markdown", "number"]

ARROWS = {"higher": "↑", "lower": "↓"}
Column = tuple[str, str, str]  # measure, network, which is better


@dataclass
class Row:
    """Runs with the same settings but for the seed."""

    settings: dict[str, Any]
    runs: list[str] = field(default_factory=list)
    values: dict[Column, list[float]] = field(default_factory=dict)
    label: str = ""

    def mean(self, column: Column) -> float | None:
        """Of the runs' values; None where none has one."""
        values = self.values.get(column)
        return statistics.mean(values) if values else None

    def spread(self, column: Column) -> float | None:
        """Standard deviation over the seeds; None for fewer than two."""
        values = self.values.get(column, [])
        return statistics.stdev(values) if len(values) > 1 else None

    def cell(self, column: Column) -> str:
        """ "0.512 ± 0.010", "0.512" or "–"."""
        mean, spread = self.mean(column), self.spread(column)
        if mean is None:
            return "–"
        return number(mean) + ("" if spread is None else f" ± {number(spread)}")


def number(value: float) -> str:
    """Four digits, as many of them behind the point as the size leaves."""
    return f"{value:#.4g}" if abs(value) >= 1 else f"{value:.4f}"


def heading(column: Column) -> str:
    """ "fid ↓ (inception)"."""
    measure, network, better = column
    return f"{measure} {ARROWS[better]} ({network})"


def compare(measured: Iterable[tuple[RunFolder, "Sequence[Result]"]]) -> tuple[list[Column], list[Row]]:
    """Columns (measures, in order of appearance) and rows (settings) of a table.

    A row is named by the settings in which the rows differ, a single one by its run folder.
    """
    rows: list[Row] = []
    columns: dict[Column, None] = {}
    for run, results in measured:
        settings = {name: value for name, value in flat(run.config).items() if name != "seed"}
        row = next((row for row in rows if row.settings == settings), None)
        if row is None:
            rows.append(row := Row(settings))
        row.runs.append(str(run.path))
        for result in results:
            column = (result.measure, result.network, result.better)
            columns[column] = None
            if result.value is not None:
                row.values.setdefault(column, []).append(result.value)
    names = dict.fromkeys(name for row in rows for name in row.settings)
    differing = [name for name in names if any(row.settings.get(name) != rows[0].settings.get(name) for row in rows)]
    for row in rows:
        row.label = ", ".join(f"{name}={_text(row.settings.get(name))}" for name in differing) or row.runs[0]
    return list(columns), rows


def as_json(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """The table as JSON: a list of {"runs", "settings", "measures"}, with every single value."""
    records = [
        {
            "runs": row.runs,
            "settings": row.settings,
            "measures": [
                {
                    **dict(zip(("measure", "network", "better"), column, strict=True)),
                    "mean": row.mean(column),
                    "spread": row.spread(column),
                    "values": row.values.get(column, []),
                }
                for column in columns
            ],
        }
        for row in rows
    ]
    return json.dumps(records, indent=2, ensure_ascii=False) + "\n"


def markdown(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """The table in Markdown, one line a row."""
    lines = [
        "| runs | " + " | ".join(map(heading, columns)) + " |",
        "| --- | " + " | ".join("---:" for _ in columns) + " |",
    ]
    for row in rows:
        label = f"{row.label} ({len(row.runs)})" if len(row.runs) > 1 else row.label
        lines.append("| " + " | ".join([label.replace("|", "\\|"), *map(row.cell, columns)]) + " |")
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)
