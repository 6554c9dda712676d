"""Small benchmark plans, and records of trials that never ran."""

from pathlib import Path
from typing import Any

from zeroshift.miniature.benchmark.measures import MEASURES
from zeroshift.miniature.benchmark.plan import BenchmarkPlan
from zeroshift.miniature.benchmark.variants import BOUND_NAMES, FITTED, SOURCES, TRUTH, parse_variant

TINY = {"adapt.steps": 1, "adapt.batch_size": 2, "adapt.augmentations": 0, "adapt.layer_batch_size": 1}


def make_plan(out: Path, *variants: str, **changes: Any) -> BenchmarkPlan:
    """A plan of one step per trial on one target, modified by `changes`."""
    bounds = {variant.name: variant for variant in (*SOURCES.values(), *FITTED.values(), TRUTH)}
    named = tuple(bounds[name] if name in BOUND_NAMES else parse_variant(name) for name in variants)
    fields: dict[str, Any] = {"targets": ("zombie",), "seeds": (0,), "people": 16, "changes": TINY, "fit_steps": 1}
    return BenchmarkPlan(out=out, variants=named, **{**fields, **changes})


def make_record(variant: str, target: str, seed: int, value: float) -> dict[str, Any]:
    """A record with the same value for every measure, from a different machine per seed."""
    cost = {"processor_seconds": value, "memory": value}
    measures = {measure.key: value for measure in MEASURES if measure.key not in cost}
    return {
        "variant": variant,
        "target": target,
        "seed": seed,
        "machine": f"machine {seed}",
        **cost,
        "measures": measures,
    }
