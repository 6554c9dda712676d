"""Evaluates a finished run: draws the samples once, computes the features of every network, then the measures."""

import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from zeroshift.core.batching import Track, untracked
from zeroshift.core.distributed import Distributed
from zeroshift.errors import ZeroshiftError
from zeroshift.evaluation.checks import divergence_warnings, guidance_warnings, sample_size_warnings
from zeroshift.evaluation.compare import YARDSTICK, left_out_notes, result_table
from zeroshift.evaluation.feature_rows import all_finite
from zeroshift.evaluation.metrics.features import Features
from zeroshift.evaluation.plan import EvaluationPlan, PlannedMeasure, make_plan
from zeroshift.evaluation.references import References
from zeroshift.evaluation.results import Result, append_result, read_results, require_writable_results
from zeroshift.evaluation.samples import make_extractor, sample_features
from zeroshift.evaluation.truth import true_images
from zeroshift.generators.checkpoints.catalogue import find_entry
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.run_generators import load_source_and_target

__all__ = ["Evaluation", "References", "Result", "evaluate", "read_results"]


@dataclass(frozen=True)
class Evaluation:
    """The results, and the reasons why other measures were left out, by measure name."""

    results: list[Result]
    left_out: dict[str, str]
    unsaved: tuple[str, ...] = ()  # why some of the results could not be written into the run folder

    def _repr_markdown_(self) -> str:
        """A table for notebooks."""
        columns, rows = result_table(self.results)
        lines = [" | ".join(columns), " | ".join("---" for _ in columns), *(" | ".join(row) for row in rows)]
        notes = [*([YARDSTICK] if rows else []), *left_out_notes([self.left_out]), *self.unsaved]
        return "\n\n".join(["\n".join(f"| {line} |" for line in lines), *notes])


def evaluate(
    run: RunFolder | str | Path,
    metrics: Sequence[str] | None = None,
    *,
    references: References | None = None,
    num: int | None = None,
    seed: int = 0,
    truncation_psi: float | None = None,
    module: nn.Module | None = None,
    skip_unavailable: bool = False,
    track: Track[Any] = untracked,
) -> Evaluation:
    """Measures a finished run and appends the results to RUN/metrics-MEASURE.jsonl.

    Source and target samples are drawn from the same latents, once for all measures, and rounded to 8 bits. Sample i
    depends only on (seed, i); a measure that needs fewer samples uses the first ones. Warnings are issued for numbers
    of images that are too small for a measure, for a network that guided the run, and for a run that has diverged.

    Args:
        run: a finished run, or its folder.
        metrics: names in `MEASURES`, each as "MEASURE" or "MEASURE:NETWORK". None: every available measure; if the
            generator has a held-out evaluator of its own, only with networks that suit its images.
        references: real images of the target domain.
        num: number of samples; None: the generator's default (`CatalogueEntry.num_samples`), or else each protocol's.
        seed: seed of the latents.
        truncation_psi: None: that of the run.
        module: see `load_source_and_target`.
        skip_unavailable: leave out measures in `metrics` that are not available, with the reason, instead of raising.
        track: progress callback.
    Raises:
        ZeroshiftError: an unfinished run, a run folder that cannot be written, an unknown or unavailable measure or
            network, or missing reference images. A disk that is full later raises nothing, see `Evaluation.unsaved`.

    Examples:
        >>> evaluation = evaluate("runs/zombie", ["clip-distance"], num=10)
        >>> [(result.measure, result.samples) for result in evaluation.results]
        [('clip-distance', 10)]
    """
    run = run if isinstance(run, RunFolder) else RunFolder.read(run)
    run.require_generator()
    require_writable_results(run)
    config = run.source_config
    device = Distributed(config.device).device
    plan = make_plan(config, metrics, references, num, device, skip_unavailable)
    _warn(guidance_warnings(plan, config))
    if not plan.measures:
        return Evaluation([], plan.left_out)
    steps = run.delivered_steps or 0
    extractors = {name: make_extractor(network, device) for name, network in plan.networks.items()}
    source, target = load_source_and_target(run, module=module)
    truth = true_images(find_entry(config.generator), config.target, source, seed)
    yardsticks = ("source",) if truth is None else ("source", "truth")
    required = plan.required(yardsticks)

    features: dict[tuple[str, str], Tensor] = {}
    for (side, network), amount in required.items():  # before the samples, so that unreadable files fail at once
        if side == "reference" and references is not None:
            features[side, network] = references.features(
                network, extractors[network], amount, source.resolution, track
            )
    _warn(sample_size_warnings(plan, features))
    psi = config.truncation_psi if truncation_psi is None else truncation_psi
    if "truncation_psi" in source.unused_settings:
        psi = 1.0  # recorded with the results; such generators do not truncate
    sampled = {key: amount for key, amount in required.items() if key[0] != "reference"}
    features |= sample_features(
        source, target, sampled, extractors, class_index=config.class_index, seed=seed, truncation_psi=psi, track=track,
        truth=truth,
    )  # fmt: skip

    results: dict[tuple[str, str], Result] = {}
    unsaved: dict[str, None] = {}
    origin = references.name if references is not None else ""
    for planned, inputs in _inputs(plan, features, (config.source, config.target), seed, track):
        num_samples = planned.amounts["target"]
        compared = {side: features[side, planned.network][:num_samples] for side in yardsticks}
        result = _measure(planned, inputs, compared, origin, psi, steps)
        try:
            append_result(run, result)
        except ZeroshiftError as error:  # the result is worth more than its file
            unsaved[str(error)] = None
        results[planned.name, planned.network] = result
    _warn(divergence_warnings(str(run.path), features))
    ordered = [results[planned.name, planned.network] for planned in plan.measures]
    return Evaluation(ordered, plan.left_out, tuple(unsaved))


def _inputs(
    plan: EvaluationPlan,
    features: Mapping[tuple[str, str], Tensor],
    labels: tuple[str, str],
    seed: int,
    track: Track[Any],
) -> Iterator[tuple[PlannedMeasure, Features]]:
    """Each measure with its features, fast measures first. Slow ones show their own progress bar."""
    slow = [planned for planned in plan.measures if planned.measure.needs == "perceptual"]
    fast = [planned for planned in plan.measures if planned not in slow]
    for planned in chain(track(fast, len(fast), "Measuring"), slow):
        sides = {side: features[side, planned.network][:amount] for side, amount in planned.amounts.items()}
        inner = track if planned in slow else untracked
        yield planned, Features(plan.networks[planned.network], labels=labels, seed=seed, track=inner, **sides)


def _measure(
    planned: PlannedMeasure,
    inputs: Features,
    yardsticks: Mapping[str, Tensor],
    origin: str,
    truncation_psi: float,
    steps: int,
) -> Result:
    """The result of one measure; without a value if some of its features are not finite.

    Args:
        yardsticks: features that are measured in the place of the target's, by side.
    """
    value, spread = _value(planned, inputs)
    others = {side: _value(planned, replace(inputs, target=features))[0] for side, features in yardsticks.items()}
    return Result(
        measure=planned.name,
        value=_finite(value),
        spread=_finite(spread),
        better=planned.measure.better,
        protocol=getattr(planned.measure.protocol, "__name__", planned.name),
        network=planned.network,
        samples=planned.amounts["target"],
        references=planned.amounts.get("reference", 0),
        reference=origin if "reference" in planned.amounts else "",
        seed=inputs.seed,
        truncation_psi=truncation_psi,
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        steps=steps,
        source_value=_finite(others.get("source")),
        truth_value=_finite(others.get("truth")),
    )


def _value(planned: PlannedMeasure, inputs: Features) -> tuple[float | None, float | None]:
    """Value and spread; None and None if some of the features are not finite."""
    finite = all(all_finite(getattr(inputs, side)) for side in planned.amounts)
    return planned.measure(inputs) if finite else (None, None)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _warn(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        warnings.warn(sentence, stacklevel=3)
