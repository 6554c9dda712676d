"""Markdown tables of a benchmark's page."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

from zeroshift.benchmark.measures import Metric, Records, means
from zeroshift.benchmark.statistics import MIN_TARGETS, Difference

__all__ = ["Comparisons", "comparison_table", "legend", "mean_table", "packed_note", "summary", "target_table"]

Comparisons = Mapping[str, Mapping[str, Difference]]  # by variant and measure, each against the baseline


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *body)]
    return "\n".join([lines[0], "| --- " * len(head) + "|", *lines[1:]])


def legend(measures: Sequence[Metric]) -> str:
    """Explanations of the columns."""
    arrows = {1: " (more is better)", -1: " (less is better)", 0: ""}
    return "\n".join(f"- **{m.title}**{arrows[m.better]}: {m.meaning}." for m in measures)


def packed_note(records: Records) -> list[str]:
    """A sentence about the trials that have no time and memory of their own; none if there are no such trials."""
    packed = sum(bool(record.get("packed")) for record in records)
    if not packed:
        return []
    return [
        f"{packed} of the {len(records)} trials were trained in packs (`--pack`), in which several targets share their "
        "source images: they have no time and no memory of their own."
    ]


def mean_table(records: Records, variants: Sequence[str], measures: Sequence[Metric]) -> str:
    """Means over targets of means over seeds, a row per variant, over the targets common to all non-empty rows."""
    targets = _common_targets(records, variants)
    body = []
    for variant in variants:
        values = means(records, variant, targets, measures)
        trials = sum(record["variant"] == variant for record in records)
        columns = (f"{values[m.key]:.{m.digits}f}" if m.key in values else "" for m in measures)
        body.append([variant, str(trials), *columns])
    return _table(["method", "trials", *(m.title for m in measures)], body)


def _common_targets(records: Records, variants: Sequence[str]) -> set[str]:
    """Targets common to all variants with at least one record."""
    by_variant = [{r["target"] for r in records if r["variant"] == variant} for variant in variants]
    measured = [targets for targets in by_variant if targets]
    return set.intersection(*measured) if measured else set()


def comparison_table(compared: Comparisons, baseline: str, measures: Sequence[Metric]) -> str:
    """Mean differences to the baseline with their intervals."""
    measures = [m for m in measures if m.better]
    body = [[name, *(_interval(by.get(m.key), m.digits) for m in measures)] for name, by in compared.items()]
    count = len(measures) * len(compared)
    return (
        f"Mean difference to `{baseline}` at the same target and seed, with the 95 % interval of a bootstrap over "
        f"targets and their seeds. Bold: the interval covers at least {MIN_TARGETS} targets and excludes zero. "
        "All other differences are inconclusive. The intervals are not corrected for multiple comparisons: without any "
        f"true difference, about {count / 20:.0f} of these {count} would be bold by chance.\n\n"
        + _table(["method", *(m.title for m in measures)], body)
    )


def _interval(difference: Difference | None, digits: int) -> str:
    if difference is None:
        return ""
    mark = "**" if difference.decided else ""
    interval = f"[{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]"
    return f"{mark}{difference.mean:+.{digits}f}{mark} {interval}"


def summary(
    records: Records,
    variants: Sequence[str],
    compared: Comparisons,
    baseline: str,
    measures: Sequence[Metric],
    phrases: Mapping[str, str],
) -> str:
    """A line per variant: its most important measures, and how it compares with the baseline.

    Args:
        phrases: format strings of the measures that are named, by key.
    """
    targets = _common_targets(records, variants)
    lines = []
    for variant in variants:
        values = means(records, variant, targets, measures)
        parts = [text.format(values[key]) for key, text in phrases.items() if key in values]
        compares = f"Against {baseline} — {_verdict(compared[variant], measures)}." if variant in compared else ""
        verdict = compares or "The baseline."
        lines.append(f"- **{variant}**: {', '.join(parts) or 'no target in common with all others'}. {verdict}")
    return "\n".join(lines)


def _verdict(by_measure: Mapping[str, Difference], measures: Sequence[Metric]) -> str:
    """Measures that are better, worse and inconclusive."""
    groups: dict[str, list[str]] = {"better": [], "worse": [], "inconclusive": []}
    for measure in measures:
        if difference := by_measure.get(measure.key):
            better = difference.mean * measure.better > 0
            groups["inconclusive" if not difference.decided else "better" if better else "worse"].append(measure.title)
    return "; ".join(f"{group}: {', '.join(titles)}" for group, titles in groups.items() if titles) or "nothing yet"


def target_table(records: Records, variants: Sequence[str], target: str, measures: Sequence[Metric]) -> str:
    """Mean and standard deviation over seeds on one target, a row per variant."""
    body = []
    for variant in variants:
        selected = [r for r in records if (r["variant"], r["target"]) == (variant, target)]
        if selected:
            body.append([variant, *(_mean_and_deviation(m, m.values(selected)) for m in measures)])
    return _table(["method", *(m.title for m in measures)], body)


def _mean_and_deviation(measure: Metric, values: Sequence[float]) -> str:
    if not values:
        return ""
    deviation = f" ± {stdev(values):.{measure.digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{measure.digits}f}{deviation}"
