"""Tables of the results of several runs. Runs that differ only in their seed form one row (mean and spread)."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from zeroshift.evaluation.results import Result
from zeroshift.methods.configure import NEUTRAL_SETTINGS, flat
from zeroshift.training.run_folder import RunFolder

__all__ = [
    "ARROWS", "YARDSTICK", "Column", "Row", "as_json", "compare", "headings", "left_out_notes", "markdown", "number",
    "result_table", "yardsticks",
]  # fmt: skip

ARROWS = {"higher": "↑", "lower": "↓"}
YARDSTICK = (
    "↑ higher is better, ↓ lower is better: than the source, which is the unadapted generator with the same samples; "
    "truth is a perfect result, where it is known."
)
_IGNORED = NEUTRAL_SETTINGS | {"seed"}


@dataclass(frozen=True)
class Column:
    """A measure with everything that must be equal for two values to be comparable."""

    measure: str
    network: str
    better: str  # "higher" or "lower"
    protocol: str
    samples: int
    references: int
    reference: str  # origin of the reference images
    sample_seed: int
    truncation_psi: float

    @classmethod
    def of(cls, result: Result) -> "Column":
        """The column of a result."""
        return cls(
            measure=result.measure,
            network=result.network,
            better=result.better,
            protocol=result.protocol,
            samples=result.samples,
            references=result.references,
            reference=result.reference,
            sample_seed=result.seed,
            truncation_psi=result.truncation_psi,
        )


@dataclass
class Row:
    """Runs that differ only in their seed."""

    settings: dict[str, Any]
    runs: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)  # of the runs
    values: dict[Column, list[tuple[int, float]]] = field(default_factory=dict)  # (seed of the run, value)
    label: str = ""
    compared: dict[tuple[str, Column], list[float]] = field(default_factory=dict)
    """Values of the unadapted source ("source") and of the true images ("truth"), which do not depend on the seed."""

    @property
    def num_seeds(self) -> int:
        """Number of different seeds."""
        return len(set(self.seeds))

    def by_seed(self, column: Column) -> list[float]:
        """The mean over the runs of each seed, for seeds that have a value."""
        values = self.values.get(column, [])
        seeds = dict.fromkeys(seed for seed, _ in values)
        return [statistics.mean(value for other, value in values if other == seed) for seed in seeds]

    def mean(self, column: Column) -> float | None:
        """Mean over the seeds; None if none has a value."""
        values = self.by_seed(column)
        return statistics.mean(values) if values else None

    def spread(self, column: Column) -> float | None:
        """Standard deviation over the seeds; None if fewer than two have a value."""
        values = self.by_seed(column)
        return statistics.stdev(values) if len(values) > 1 else None

    def cell(self, column: Column) -> str:
        """ "0.512 ± 0.010", "0.512" or "–"; followed by "(2 of 3)" if not all seeds have a value."""
        mean, spread, count = self.mean(column), self.spread(column), len(self.by_seed(column))
        if mean is None:
            return "–"
        text = number(mean) + ("" if spread is None else f" ± {number(spread)}")
        return text if count == self.num_seeds else f"{text} ({count} of {self.num_seeds})"


def number(value: float) -> str:
    """The value with four significant digits, or with four decimals if it is below 1."""
    return f"{value:#.4g}" if abs(value) >= 1 else f"{value:.4f}"


def result_table(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the results of one run, as text; the truth is a column if it is known."""
    truth = ["truth"] if any(result.truth_value is not None for result in results) else []
    rows = []
    for result in results:
        values = (result.value, result.source_value, *((result.truth_value,) if truth else ()))
        value, *others = ("–" if each is None else number(each) for each in values)
        spread = "" if result.spread is None else f" ± {number(result.spread)}"
        facts = (result.network, str(result.samples), result.protocol)
        rows.append([f"{result.measure} {ARROWS[result.better]}", value + spread, *others, *facts])
    return ["measure", "value", "source", *truth, "network", "samples", "protocol"], rows


def left_out_notes(left_out: Iterable[Mapping[str, str]]) -> list[str]:
    """A sentence for each reason why measures were left out of evaluations, from reasons by measure."""
    by_reason: dict[str, dict[str, None]] = {}
    for reasons in left_out:
        for name, reason in reasons.items():
            by_reason.setdefault(reason, {})[name] = None
    return [f"Left out: {', '.join(names)}. {reason}" for reason, names in by_reason.items()]


def headings(columns: Sequence[Column]) -> list[str]:
    """ "fid ↓ (inception)"; columns of the same measure and network also state their differences."""
    texts = []
    for column in columns:
        same = [asdict(one) for one in columns if (one.measure, one.network) == (column.measure, column.network)]
        differing = [
            f"{name.replace('_', ' ')} {value}"
            for name, value in asdict(column).items()
            if any(other[name] != value for other in same)
        ]
        texts.append(f"{column.measure} {ARROWS[column.better]} ({', '.join([column.network, *differing])})")
    return texts


def compare(measured: Iterable[tuple[RunFolder, Sequence[Result]]]) -> tuple[list[Column], list[Row]]:
    """Columns (measures, in order of appearance) and rows (settings) of a table.

    Rows are labeled with the settings in which they differ, a single row with its run folder. `adapt.steps` is the
    number of steps of the measured generator, which is lower than in config.json while a run is being extended.
    """
    rows: list[Row] = []
    columns: dict[Column, None] = {}
    for run, results in measured:
        settings = {name: value for name, value in flat(run.config).items() if name not in _IGNORED}
        settings["adapt.steps"] = next((result.steps for result in results if result.steps), settings["adapt.steps"])
        row = next((row for row in rows if row.settings == settings), None)
        if row is None:
            rows.append(row := Row(settings))
        row.runs.append(str(run.path))
        row.seeds.append(run.config.seed)
        for result in results:
            column = Column.of(result)
            columns[column] = None
            if result.value is not None:
                row.values.setdefault(column, []).append((run.config.seed, result.value))
            for side, value in (("source", result.source_value), ("truth", result.truth_value)):
                if value is not None:
                    row.compared.setdefault((side, column), []).append(value)
    differing = _differing(rows)
    for row in rows:
        texts = [f"{name}={_text(row.settings[name])}" for name in differing if name in row.settings]
        row.label = ", ".join(texts) or row.runs[0]
    return list(columns), rows


def yardsticks(columns: Sequence[Column], rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """Rows to compare the others with: label and a cell per column, for the unadapted source and the truth.

    A cell of rows with different values, because of different targets, shows the lowest and the highest.
    """
    lines = []
    for side, label in (("source", "source (unadapted)"), ("truth", "truth (perfect)")):
        cells = []
        for column in columns:
            values = [number(value) for row in rows for value in row.compared.get((side, column), [])]
            ordered = sorted(set(values), key=float)
            cells.append("–" if not ordered else " to ".join(dict.fromkeys((ordered[0], ordered[-1]))))
        if any(cell != "–" for cell in cells):
            lines.append((label, cells))
    return lines


def _differing(rows: Sequence[Row]) -> list[str]:
    """Settings in which rows differ, except settings that the method or family of a row does not have."""
    names = dict.fromkeys(name for row in rows for name in row.settings)
    values = {name: [row.settings[name] for row in rows if name in row.settings] for name in names}
    return [name for name in names if any(value != values[name][0] for value in values[name])]


def as_json(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """The table as JSON: a list of {"runs", "seeds", "settings", "measures"}.

    Each measure has its protocol, mean and spread, every value with the seed of its run, and the values of the
    unadapted source and of the true images, or null.
    """
    records = [
        {
            "runs": row.runs,
            "seeds": row.seeds,
            "settings": row.settings,
            "measures": [
                {
                    **asdict(column),
                    "mean": row.mean(column),
                    "spread": row.spread(column),
                    "values": [value for _, value in row.values.get(column, [])],
                    "seeds": [seed for seed, _ in row.values.get(column, [])],
                    **{side: _mean(row.compared.get((side, column))) for side in ("source", "truth")},
                }
                for column in columns
            ],
        }
        for row in rows
    ]
    return json.dumps(records, indent=2, ensure_ascii=False) + "\n"


def markdown(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """The table in Markdown; a row of several seeds states their number."""
    lines = [
        "| runs | " + " | ".join(headings(columns)) + " |",
        "| --- | " + " | ".join("---:" for _ in columns) + " |",
    ]
    for row in rows:
        label = f"{row.label} ({row.num_seeds})" if row.num_seeds > 1 else row.label
        lines.append("| " + " | ".join([label.replace("|", "\\|"), *map(row.cell, columns)]) + " |")
    compared = yardsticks(columns, rows)
    lines += ["| " + " | ".join([label, *cells]) + " |" for label, cells in compared]
    return "\n".join([*lines, *(["", YARDSTICK] if compared else [])]) + "\n"


def _mean(values: Sequence[float] | None) -> float | None:
    return statistics.mean(values) if values else None


def _text(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)
