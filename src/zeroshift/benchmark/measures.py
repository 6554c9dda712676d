"""The measures of a benchmark as columns of its tables, and the comparison of two variants."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from zeroshift.benchmark.statistics import Difference, compare

__all__ = ["Metric", "Records", "compare_variants", "differences", "means"]

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Metric:
    """A column of the tables.

    Attributes:
        key: its key in "measures" of a record, or in the record itself.
        title: its heading.
        better: 1 if more is better, -1 if less is better, 0 if it is not compared.
        digits: decimal places.
        meaning: its explanation on the page.
    """

    key: str
    title: str
    better: int
    digits: int
    meaning: str

    def values(self, records: Records) -> list[float]:
        """Its values in the records that have it."""
        facts = ({**record["measures"], **record} for record in records)
        return [fact[self.key] for fact in facts if self.key in fact]


def means(records: Records, variant: str, targets: Collection[str], measures: Sequence[Metric]) -> dict[str, float]:
    """By measure, the mean over targets of the mean over seeds; targets without a value are left out."""
    groups = [[r for r in records if (r["variant"], r["target"]) == (variant, target)] for target in sorted(targets)]
    by_measure = {m.key: [mean(values) for group in groups if (values := m.values(group))] for m in measures}
    return {key: mean(values) for key, values in by_measure.items() if values}


def differences(records: Records, variant: str, other: str, measure: Metric) -> list[list[float]]:
    """`variant` minus `other`: for each target, the differences at the seeds that both share."""
    values = {(r["variant"], r["target"], r["seed"]): value for r in records for value in measure.values([r])}
    paired: dict[str, list[float]] = {}
    for (name, target, seed), value in values.items():
        if name == variant and (other, target, seed) in values:
            paired.setdefault(target, []).append(value - values[other, target, seed])
    return list(paired.values())


def compare_variants(records: Records, variant: str, other: str, measures: Sequence[Metric]) -> dict[str, Difference]:
    """`variant` minus `other` by measure, for all measures with a better direction."""
    paired = {m.key: differences(records, variant, other, m) for m in measures if m.better}
    return {key: compare(values) for key, values in paired.items() if values}
