"""The numbers of a benchmark: what each means, where it counts, and two rows against each other."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from zeroshift.miniature.benchmark.bounds import BOUNDS
from zeroshift.miniature.benchmark.statistics import Difference, compare

__all__ = ["MEASURES", "Measure", "Records", "against", "countable", "differences", "machines", "means", "unknown"]

Records = Sequence[Mapping[str, Any]]
_KNOWN = 0.5  # share of true images that the judge must take for their domain, or what it says of others means little


@dataclass(frozen=True)
class Measure:
    """A column: where its number stands, which way is better (1 up, -1 down, 0: not compared), digits, its meaning."""

    key: str
    title: str
    better: int
    digits: int
    meaning: str

    def of(self, records: Records) -> list[float]:
        """Its values in the records of cells that have it."""
        facts = ({**record["measures"], **record} for record in records)
        return [fact[self.key] for fact in facts if self.key in fact]


# Time and memory are not compared: whatever else a machine does at the time would be a finding.
MEASURES = (
    Measure("accuracy", "domain", 1, 3, "share that the judge takes for the target, among 84 domains"),
    Measure(
        "distance", "distance", -1, 3, "cosine distance, for the judge, to the true target image of the same person"
    ),
    Measure("map_distance", "maps", -1, 3, "the same in the judge's feature maps (LPIPS without learned weights)"),
    Measure("psnr", "PSNR", 1, 2, "to the same true image, in dB, over all pixels"),
    Measure(
        "fd",
        "FD",
        -1,
        3,
        "Fréchet distance to the true images in the judge's embedding; to compare "
        "within a page only, since it depends on the number of people",
    ),
    Measure("classes", "classes", 1, 3, "visible class factors that the probe reads rightly"),
    Measure("scalars", "scalars", 1, 3, "visible scalar factors: correlation of what the probe reads with the truth"),
    Measure("kept", "kept", 1, 3, "variance between people that is left where true people differ; 0 is collapse"),
    Measure("diversity", "diversity", 0, 3, "mean distance between different people, relative to the truth's"),
    Measure("processor_seconds", "seconds", 0, 0, "of one processor core, for all stages of the adaptation"),
    Measure("memory", "MiB", 0, 0, "peak memory of its process"),
)


def machines(cells: Records) -> list[str]:
    """On which the methods ran, the one of most cells first."""
    return [name for name, _ in Counter(cell["machine"] for cell in cells if cell["row"] not in BOUNDS).most_common()]


def unknown(cells: Records) -> dict[str, float]:
    """The targets that the judge does not know when it sees the truth, with the share of true images that it does."""
    known = {cell["target"]: cell["measures"]["accuracy"] for cell in cells if cell["row"] == "truth"}
    return {target: share for target, share in known.items() if share < _KNOWN}


def countable(cells: Records) -> list[dict[str, Any]]:
    """The records without what does not count.

    That is the domain, where the judge does not know the truth itself, and time and memory on any machine but that of
    most cells.
    """
    usual, strange = machines(cells)[:1], unknown(cells)
    counted = []
    for cell in cells:
        there = [cell["machine"]] == usual
        record = {key: cell[key] for key in cell if there or key not in ("processor_seconds", "memory")}
        if cell["target"] in strange:
            record["measures"] = {key: value for key, value in cell["measures"].items() if key != "accuracy"}
        counted.append(record)
    return counted


def means(records: Records, row: str, targets: Collection[str]) -> dict[str, float]:
    """Means over those targets of means over seeds, by the key of a measure; without those that the row has not."""
    groups = [[r for r in records if r["row"] == row and r["target"] == target] for target in sorted(targets)]
    values = {m.key: [mean(those) for group in groups if (those := m.of(group))] for m in MEASURES}
    return {key: mean(those) for key, those in values.items() if those}


def differences(records: Records, row: str, other: str, measure: Measure) -> list[list[float]]:
    """What `row` has more than `other`, a list a target, an entry a seed that both have."""
    values = {(r["row"], r["target"], r["seed"]): value for r in records for value in measure.of([r])}
    paired: dict[str, list[float]] = {}
    for (name, target, seed), value in values.items():
        if name == row and (other, target, seed) in values:
            paired.setdefault(target, []).append(value - values[other, target, seed])
    return list(paired.values())


def against(records: Records, row: str, other: str) -> dict[str, Difference]:
    """`row` compared with `other` in every measure that has a better and a worse, by its key."""
    found = {m.key: differences(records, row, other, m) for m in MEASURES if m.better}
    return {key: compare(paired) for key, paired in found.items() if paired}
