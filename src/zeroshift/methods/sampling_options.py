"""Which sampling settings a configuration has: those of its generator's family."""

import contextlib
import dataclasses

from zeroshift.config.settings import AdaptConfig, GeneratorOptions
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.architectures import architecture_of
from zeroshift.generators.registry import FAMILIES

__all__ = ["family_options", "options_with"]


def family_options(config: AdaptConfig) -> type[GeneratorOptions]:
    """The options of the family that the configuration or its generator names; without one, those of no family."""
    family = config.family or architecture_of(config.generator) or ""
    return FAMILIES[family].Options if family else GeneratorOptions


def options_with(config: AdaptConfig, names: set[str]) -> type[GeneratorOptions]:
    """The options of the named generator's family or, if it lacks some of these, of the first family that has them.

    A run with a generator object, which has no name, has the options of another family than the default generator's.
    """

    def has_all(kind: type[GeneratorOptions]) -> bool:
        return names <= {spec.name for spec in dataclasses.fields(kind)}

    kind = family_options(config)
    if has_all(kind):
        return kind
    for family in FAMILIES:
        with contextlib.suppress(ZeroshiftError):  # a broken package must not stop runs of other families
            if has_all(FAMILIES[family].Options):
                return FAMILIES[family].Options
    return kind
