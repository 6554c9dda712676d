"""CSV and LaTeX tables of a benchmark."""

import csv
import io
from typing import Any

from zeroshift.benchmark.exports import csv_table, latex_table
from zeroshift.benchmark.measures import Metric

DISTANCE = Metric("fd:net", "fd_x", -1, 2, "")


def record(variant: str, seed: int, value: float) -> dict[str, Any]:
    result = {"measure": "fd", "network": "net", "samples": 10, "references": 3, "better": "lower", "value": value}
    compared = {"source_value": 9.0, "truth_value": None}
    return {
        "variant": variant, "target": "a & b", "seed": seed, "measures": {"fd:net": value},
        "results": [{**result, **compared}],
    }  # fmt: skip


RECORDS = [record("nada", 0, 2.0), record("nada", 1, 4.0), record("ipl", 0, 1.0), record("ipl", 1, 1.0)]


def test_csv_has_a_line_per_value() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_table(RECORDS))))
    assert [(row["variant"], row["seed"], row["value"]) for row in rows] == [
        ("nada", "0", "2.0"), ("nada", "1", "4.0"), ("ipl", "0", "1.0"), ("ipl", "1", "1.0"),
    ]  # fmt: skip
    assert {(row["source_value"], row["truth_value"]) for row in rows} == {("9.0", "")}


def test_latex_marks_the_best_method_and_escapes_names() -> None:
    source = {"variant": "source", "target": "a & b", "seed": 0, "measures": {"fd:net": 0.5}}
    text = latex_table([*RECORDS, source], ["source", "nada", "ipl"], ["a & b"], [DISTANCE])
    assert r"target & method & fd\_x $\downarrow$ \\" in text
    assert r"a \& b & source & 0.50 \\" in text, "the source is lowest, but no method"
    assert r" & nada & 3.00 $\pm$ 1.41 \\" in text
    assert r" & ipl & \textbf{1.00} $\pm$ 0.00 \\" in text
    assert text.count(r"\midrule") == 1
    assert text.index(r"\toprule") < text.index(r"\bottomrule")
