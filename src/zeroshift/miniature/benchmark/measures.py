"""The measures of a benchmark, the records that they apply to, and the comparison of two variants."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from zeroshift.miniature.benchmark.statistics import Difference, compare
from zeroshift.miniature.benchmark.variants import BOUND_NAMES

__all__ = [
    "MEASURES",
    "Metric",
    "Records",
    "comparable",
    "compare_variants",
    "differences",
    "machines",
    "means",
    "unrecognized",
]  # fmt: skip

Records = Sequence[Mapping[str, Any]]
_MIN_RECOGNIZED = 0.5  # if a smaller fraction of true images is recognized, `accuracy` is not meaningful


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


# Time and memory are not compared, because they depend on the load of the machine.
MEASURES = (
    Metric("accuracy", "domain", 1, 3, "fraction of images that the held-out evaluator classifies as the target, "
            "among 84 domains"),
    Metric("distance", "distance", -1, 3, "cosine distance to the true image of the same person in the target "
            "domain, in the held-out evaluator's embedding"),
    Metric("map_distance", "maps", -1, 3, "the same in the held-out evaluator's feature maps (LPIPS without learned "
            "weights)"),
    Metric("psnr", "PSNR", 1, 2, "peak signal-to-noise ratio to the same true image, in dB"),
    Metric("fd", "FD", -1, 3, "Fréchet distance to the true images in the held-out evaluator's embedding; comparable "
            "only within a page, because it depends on the number of people"),
    Metric("classes", "classes", 1, 3, "fraction of visible class factors that the probe reads correctly"),
    Metric("scalars", "scalars", 1, 3, "visible scalar factors: correlation of the probe's readings with the truth"),
    Metric("kept", "kept", 1, 3, "fraction of the variance between people that is kept, where their true images "
            "differ; 0 is full collapse"),
    Metric("diversity", "diversity", 0, 3, "mean distance between different people, relative to that of true images"),
    Metric("processor_seconds", "seconds", 0, 0, "processor time of all stages of the adaptation"),
    Metric("memory", "MiB", 0, 0, "peak memory of the process"),
)  # fmt: skip


def machines(records: Records) -> list[str]:
    """The machines on which methods ran, most used first."""
    counts = Counter(record["machine"] for record in records if record["variant"] not in BOUND_NAMES)
    return [name for name, _ in counts.most_common()]


def unrecognized(records: Records) -> dict[str, float]:
    """Targets whose true images the held-out evaluator mostly fails to recognize, with the recognized fraction."""
    truths = [record for record in records if record["variant"] == "truth" and "accuracy" in record["measures"]]
    shares = {record["target"]: record["measures"]["accuracy"] for record in truths}
    return {target: share for target, share in shares.items() if share < _MIN_RECOGNIZED}


def comparable(records: Records) -> list[dict[str, Any]]:
    """The records without values that are not comparable.

    These are `accuracy` on targets whose true images are not recognized, and time and memory on all machines except
    the most used one.
    """
    usual, excluded = machines(records)[:1], unrecognized(records)
    result = []
    for record in records:
        on_usual = [record["machine"]] == usual
        kept = {key: record[key] for key in record if on_usual or key not in ("processor_seconds", "memory")}
        if record["target"] in excluded:
            kept["measures"] = {key: value for key, value in record["measures"].items() if key != "accuracy"}
        result.append(kept)
    return result


def means(records: Records, variant: str, targets: Collection[str]) -> dict[str, float]:
    """By measure, the mean over targets of the mean over seeds; targets without a value are left out."""
    groups = [[r for r in records if (r["variant"], r["target"]) == (variant, target)] for target in sorted(targets)]
    by_measure = {m.key: [mean(values) for group in groups if (values := m.values(group))] for m in MEASURES}
    return {key: mean(values) for key, values in by_measure.items() if values}


def differences(records: Records, variant: str, other: str, measure: Metric) -> list[list[float]]:
    """`variant` minus `other`: for each target, the differences at the seeds that both share."""
    values = {(r["variant"], r["target"], r["seed"]): value for r in records for value in measure.values([r])}
    paired: dict[str, list[float]] = {}
    for (name, target, seed), value in values.items():
        if name == variant and (other, target, seed) in values:
            paired.setdefault(target, []).append(value - values[other, target, seed])
    return list(paired.values())


def compare_variants(records: Records, variant: str, other: str) -> dict[str, Difference]:
    """`variant` minus `other` by measure, for all measures with a better direction."""
    paired = {m.key: differences(records, variant, other, m) for m in MEASURES if m.better}
    return {key: compare(values) for key, values in paired.items() if values}
