"""The measures of the miniature benchmark, and the records that they apply to."""

from collections import Counter
from typing import Any

from zeroshift.benchmark.measures import Metric, Records
from zeroshift.miniature.benchmark.variants import BOUND_NAMES

__all__ = ["MEASURES", "comparable", "machines", "unrecognized"]

_MIN_RECOGNIZED = 0.5  # if a smaller fraction of true images is recognized, `accuracy` is not meaningful


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
