"""Tables of a benchmark for other programs: CSV with a line per value, and LaTeX with booktabs."""

import csv
import io
from collections.abc import Sequence
from statistics import mean, stdev

from zeroshift.benchmark.measures import Metric, Records
from zeroshift.io.outputs import MARK

__all__ = ["csv_table", "latex_table"]

_SPECIAL = {"\\": r"\textbackslash{}", **{each: rf"\{each}" for each in "&%$#_{}"}, "~": r"\textasciitilde{}"}
_SPECIAL["^"] = r"\textasciicircum{}"


def csv_table(records: Records) -> str:
    """One line per trial and measure, with the values of the unadapted source and of the truth, if it is known."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = ("network", "samples", "references", "better", "value", "source_value", "truth_value")
    writer.writerow(["variant", "target", "seed", "measure", *names])
    for record in records:
        for result in record["results"]:
            cells = ("" if result.get(name) is None else result.get(name, "") for name in names)
            writer.writerow([record["variant"], record["target"], record["seed"], result["measure"], *cells])
    return buffer.getvalue()


def latex_table(records: Records, variants: Sequence[str], targets: Sequence[str], measures: Sequence[Metric]) -> str:
    """A block of rows per target: mean ± standard deviation over seeds, with the best method in bold.

    Args:
        variants: rows in order; "source" and "truth" are never bold.
    """
    arrows = {1: r" $\uparrow$", -1: r" $\downarrow$", 0: ""}
    head = " & ".join(["target", "method", *(_escaped(m.title) + arrows[m.better] for m in measures)])
    lines = [
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{ll{'r' * len(measures)}}}",
        r"\toprule",
        rf"{head} \\",
    ]
    for target in targets:
        rows = {name: [r for r in records if (r["variant"], r["target"]) == (name, target)] for name in variants}
        rows = {name: selected for name, selected in rows.items() if selected}
        values = {m.key: {name: m.values(selected) for name, selected in rows.items()} for m in measures}
        best = {m.key: _best(values[m.key], m) for m in measures}
        lines.append(r"\midrule")
        for index, name in enumerate(rows):
            cells = (_cell(values[m.key][name], m, name == best[m.key]) for m in measures)
            lines.append(" & ".join([_escaped(target) if not index else "", _escaped(name), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", f"% {MARK}"])


def _best(values: dict[str, list[float]], measure: Metric) -> str | None:
    """The method with the best mean; None if the measure has no direction or there is one method only."""
    means = {name: mean(each) for name, each in values.items() if each and name not in ("source", "truth")}
    return max(means, key=lambda name: means[name] * measure.better) if measure.better and len(means) > 1 else None


def _cell(values: Sequence[float], measure: Metric, bold: bool) -> str:
    if not values:
        return "--"
    text = f"{mean(values):.{measure.digits}f}"
    deviation = rf" $\pm$ {stdev(values):.{measure.digits}f}" if len(values) > 1 else ""
    return (rf"\textbf{{{text}}}" if bold else text) + deviation


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)
