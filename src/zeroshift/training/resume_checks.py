"""Compares the settings of a command with those of the run that it resumes or extends."""

import warnings
from collections.abc import Container
from pathlib import Path
from typing import Any

from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.architectures import require_generator
from zeroshift.methods.configure import NEUTRAL_SETTINGS, flat
from zeroshift.methods.registry import METHODS

__all__ = ["check_same", "same_results"]


def same_results(one: AdaptConfig, other: AdaptConfig) -> bool:
    """Whether two configurations differ in NEUTRAL_SETTINGS at most."""
    return not _differences(one, other)


def _differences(one: AdaptConfig, other: AdaptConfig) -> dict[str, tuple[Any, Any]]:
    """Settings that apply to both with different values and change results; the family follows from the generator."""
    old, new = flat(one), flat(other)
    compared = (old.keys() & new.keys()) - NEUTRAL_SETTINGS - {"family"}
    return {key: (old[key], new[key]) for key in sorted(compared) if old[key] != new[key]}


def check_same(path: Path, existing: AdaptConfig, config: AdaptConfig) -> None:
    """Checks that a configuration resumes or extends the run in `path`; warns if it stretches what follows the steps.

    Raises:
        ZeroshiftError: naming a generator or encoder that does not exist, or else the settings that differ.
    """
    differences = _differences(existing, config)
    if set(differences) == {"adapt.steps"} and config.adapt.steps > existing.adapt.steps:
        _warn_stretched(existing, config)
        return
    _require_names(config, differences)
    if differences:
        listed = ", ".join(f"{key} ({old} there, {new} now)" for key, (old, new) in differences.items())
        raise ZeroshiftError(
            f"The run in {path} was started with other settings: {listed}. Repeat its settings to resume it, "
            f"or give another folder (--out)."
        )


def _require_names(config: AdaptConfig, changed: Container[str]) -> None:
    """Raises ZeroshiftError if a changed generator or encoder does not exist: then it is mistyped."""
    if "generator" in changed:
        require_generator(config.generator)
    if "encoders" in changed:
        from zeroshift.clip.loading import require_encoder

        for name in config.encoders:
            require_encoder(name)


def _warn_stretched(existing: AdaptConfig, config: AdaptConfig) -> None:
    """Warns if something of the run is spread over all its steps."""
    rate = "the learning rate (adapt.lr to adapt.lr_final)" if config.adapt.lr_final is not None else ""
    stretched = [part for part in (rate, METHODS[config.method].paced_by_steps) if part]
    if stretched:
        warnings.warn(
            f"{' and '.join(stretched).capitalize()} spread over all steps of a run. The further steps follow the plan "
            f"for {config.adapt.steps} steps, but the first {existing.adapt.steps} followed a shorter one: the result "
            "differs from that of a run started with the larger --steps.",
            stacklevel=5,
        )
