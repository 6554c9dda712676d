"""What a benchmark on any generator measures: all combinations of domain pairs, variants and seeds."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zeroshift.benchmark.provenance import fingerprint, recorded_settings, slug
from zeroshift.benchmark.statistics import load_scipy_stats
from zeroshift.benchmark.variants import Variant
from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.methods.configure import changed, default_config, flat, resolve

__all__ = ["BOUNDS", "DomainPair", "GeneratorPlan", "GeneratorTrial", "parse_pair"]

BOUNDS = ("source", "truth")  # rows of the tables that no method produced


@dataclass(frozen=True)
class DomainPair:
    """A source generator, the label of its domain and the label of the target domain."""

    generator: str
    source: str
    target: str

    @property
    def name(self) -> str:
        """Its heading in tables and its folder."""
        return f"{self.source} to {self.target}"


def parse_pair(generator: str, text: str) -> DomainPair:
    """A pair from "TARGET" or "SOURCE:TARGET"; the default source is that of `zeroshift adapt`.

    Raises:
        ZeroshiftError: for an empty label.
    """
    source, colon, target = text.partition(":")
    pair = DomainPair(generator, source.strip(), target.strip())
    if not colon:
        pair = DomainPair(generator, AdaptConfig.source, text.strip())
    if not (pair.source and pair.target):
        raise ZeroshiftError(f"{text!r} is not a target. Write TARGET or SOURCE:TARGET, such as human:werewolf.")
    return pair


@dataclass(frozen=True)
class GeneratorTrial:
    """One variant, domain pair and seed."""

    variant: Variant
    pair: DomainPair
    seed: int

    def __str__(self) -> str:
        return f"{self.variant.name}, {self.pair.name}, seed {self.seed}"


@dataclass(frozen=True)
class GeneratorPlan:
    """The trials of a benchmark on any generator.

    Attributes:
        out: folder of the trials; each is a run folder with its record and its pictures beside it.
        pairs, variants, seeds: all combinations are trials.
        metrics: measures as for `zeroshift evaluate`; None: all that are available.
        references: folder of real target images, or of one such folder per target; None: there are none.
        num: number of samples; None: that of each measure's protocol.
        preset: preset of all variants; empty: the generator's.
        changes: settings by dotted name that differ in all variants.
        again: measure finished trials again, for example after a missing network was installed.
    """

    out: Path
    pairs: tuple[DomainPair, ...]
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...] = (0,)
    metrics: tuple[str, ...] | None = None
    references: Path | None = None
    num: int | None = None
    preset: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    again: bool = False

    def validate(self) -> "GeneratorPlan":
        """This plan, if all of its trials can run.

        Raises:
            ZeroshiftError: naming the first problem.
        """
        from zeroshift.evaluation.metrics.registry import MEASURES

        load_scipy_stats()
        if not (self.variants and self.pairs and self.seeds):
            raise ZeroshiftError("A benchmark needs at least one method, one target and one seed.")
        for values in ([one.name for one in self.variants], [one.name for one in self.pairs], self.seeds):
            if len(set(values)) < len(values):
                raise ZeroshiftError(f"There is a duplicate in {', '.join(map(str, values))}. Remove it.")
        if self.num is not None and self.num < 10:
            raise ZeroshiftError("A benchmark needs at least ten samples (--num).")
        for name in self.metrics or ():
            MEASURES[name.partition(":")[0]]  # raises, and suggests the right name
        if self.references is not None and not any(map(self.reference_folder, self.pairs)):
            folders = ", ".join(slug(pair.target) for pair in self.pairs)
            raise ZeroshiftError(f"{self.references} has no images for these targets. Make subfolders: {folders}.")
        configs = [self.config(trial) for trial in self.trials()]
        for name, value in self.changes.items():
            if not any(name in flat(config) for config in configs):
                changed(configs[0], {name: value})  # raises, and suggests the right name
        return self

    def baseline(self, name: str | None = None) -> str:
        """The variant that the others are compared with: the named one, or nada, or the first.

        Raises:
            ZeroshiftError: if there is no such variant.
        """
        names = [variant.name for variant in self.variants]
        chosen = name or ("nada" if "nada" in names else names[0])
        if chosen not in names:
            raise ZeroshiftError(f"{chosen!r} cannot be the baseline: it is not among the methods {', '.join(names)}.")
        return chosen

    def trials(self) -> list[GeneratorTrial]:
        """All trials, seed by seed, so that an interrupted benchmark contains complete comparisons."""
        return [
            GeneratorTrial(variant, pair, seed)
            for seed in self.seeds
            for pair in self.pairs
            for variant in self.variants
        ]

    def config(self, trial: GeneratorTrial) -> AdaptConfig:
        """The settings of a trial. Changes that its method and generator do not have are left out."""
        start = default_config(trial.pair.generator, self.preset or None, trial.variant.changes.get("method"))
        start = replace(start, source=trial.pair.source, target=trial.pair.target, seed=trial.seed)
        applicable = {name: value for name, value in self.changes.items() if name in flat(start)}
        return resolve(changed(changed(start, applicable), trial.variant.changes))

    def provenance(self, trial: GeneratorTrial) -> dict[str, Any]:
        """Everything that the adapted generator depends on, except the code."""
        path = Path(trial.pair.generator)
        weights = {"weights": fingerprint(path)} if path.is_file() else {}
        settings = recorded_settings(self.config(trial))
        settings.pop("device", None)
        facts: dict[str, Any] = json.loads(json.dumps({**weights, "settings": settings}))
        return facts

    def folder(self, trial: GeneratorTrial) -> Path:
        """The run folder of a trial. Its record and its pictures have the same name with .json and .png."""
        facts = json.dumps(self.provenance(trial), sort_keys=True)
        digest = hashlib.sha256(facts.encode()).hexdigest()[:8]
        return self.out / "trials" / slug(trial.pair.name) / slug(trial.variant.name) / f"seed{trial.seed}-{digest}"

    def reference_folder(self, pair: DomainPair) -> Path | None:
        """The folder of a target's real images: a subfolder with its name, or for one target the folder itself."""
        if self.references is None:
            return None
        for name in (pair.target, slug(pair.target)):
            if (self.references / name).is_dir():
                return self.references / name
        return self.references if len(self.pairs) == 1 else None
