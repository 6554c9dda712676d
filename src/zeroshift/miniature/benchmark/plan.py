"""What a benchmark measures: a `Trial` is one variant, target and seed; a `BenchmarkPlan` is all combinations."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zeroshift.benchmark.statistics import load_scipy_stats
from zeroshift.benchmark.variants import Variant
from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.methods.configure import changed, default_config, flat, resolve
from zeroshift.miniature.world.domains import SOURCE, parse_domain

__all__ = ["BenchmarkPlan", "Key", "Trial"]

Key = tuple[str, str, int]  # variant, target, seed


@dataclass(frozen=True)
class Trial:
    """One variant, target and seed."""

    variant: Variant
    target: str
    seed: int

    def config(self, changes: Mapping[str, Any]) -> AdaptConfig:
        """The settings of the adaptation.

        Args:
            changes: settings of the whole benchmark, by dotted name. Those that do not apply to this method and
                generator are ignored; those of the variant take precedence.
        """
        start = default_config(self.variant.generator, method=self.variant.changes.get("method"))
        start = replace(start, target=self.target, seed=self.seed, device="cpu")
        applicable = {name: value for name, value in changes.items() if name in flat(start)}
        return resolve(changed(changed(start, applicable), self.variant.changes))

    @property
    def key(self) -> Key:
        """The identifier of this trial in a benchmark."""
        return self.variant.name, self.target, self.seed

    def __str__(self) -> str:
        return f"{self.variant.name}, {self.target}, seed {self.seed}"


@dataclass(frozen=True)
class BenchmarkPlan:
    """The trials of a benchmark.

    Attributes:
        out: folder of the finished trials.
        variants, targets, seeds: all combinations are trials; bounds use the first seed only.
        people: number of people on which every trial is measured, the same for all.
        changes: settings by dotted name that differ in all variants.
        fit_steps: training steps of the upper bounds.
        previous: records of an earlier benchmark (`records.read_previous`); those with equal provenance are reused.
    """

    out: Path
    variants: tuple[Variant, ...]
    targets: tuple[str, ...]
    seeds: tuple[int, ...]
    people: int = 512
    changes: Mapping[str, Any] = field(default_factory=dict)
    fit_steps: int = 300
    previous: Mapping[Key, Mapping[str, Any]] = field(default_factory=dict)

    def validate(self) -> "BenchmarkPlan":
        """This plan, if all of its trials can run.

        Raises:
            ZeroshiftError: naming the first problem.
        """
        load_scipy_stats()
        if not (self.variants and self.targets and self.seeds):
            raise ZeroshiftError("A benchmark needs at least one method, one target and one seed.")
        for values in ([variant.name for variant in self.variants], self.targets, self.seeds):
            if len(set(values)) < len(values):
                raise ZeroshiftError(f"There is a duplicate in {', '.join(map(str, values))}. Remove it.")
        if self.people < 16 or self.fit_steps < 0:
            raise ZeroshiftError("A benchmark needs at least 16 people and no negative number of steps.")
        for target in self.targets:
            if parse_domain(target) == SOURCE:
                raise ZeroshiftError(f"{target!r} is the source domain. Name another target.")
        configs = [trial.config(self.changes) for trial in self.trials() if not trial.variant.bound]
        for name, value in self.changes.items():
            if configs and not any(name in flat(config) for config in configs):
                changed(configs[0], {name: value})  # raises, and suggests the right name
        return self

    def trials(self) -> list[Trial]:
        """All trials, seed by seed, so that an interrupted benchmark contains complete comparisons."""
        return [
            Trial(variant, target, seed)
            for seed in self.seeds
            for target in self.targets
            for variant in self.variants
            if not variant.bound or seed == self.seeds[0]
        ]
