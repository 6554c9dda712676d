"""Registries of adaptation methods, stages and presets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zeroshift.core.registry import Registry

if TYPE_CHECKING:
    from zeroshift.methods.base import Method, Stage

__all__ = ["METHODS", "PRESETS", "STAGES", "Preset"]

METHODS: "Registry[type[Method]]" = Registry(
    "method",
    "zeroshift.methods",
    {
        "ipl": "zeroshift.methods.ipl:IPL",
        "scaffold": "zeroshift.methods.scaffold:Scaffold",
        "compass": "zeroshift.methods.compass:Compass",
        "nada": "zeroshift.methods.nada:NADA",
        "air": "zeroshift.methods.air:AIR",
        "svl": "zeroshift.methods.svl:SVL",
        "domain-vector": "zeroshift.methods.domain_vector:DomainVector",
    },
)
"""Methods by the name that `AdaptConfig.method` takes. Entry points: "zeroshift.methods"."""

STAGES: "Registry[type[Stage]]" = Registry(
    "stage",
    "zeroshift.stages",
    {"prompts": "zeroshift.methods.ipl:PromptLearning"},
)
"""Stages by name, for their titles in reports. The title of a stage that is not registered is its name.

Entry points: "zeroshift.stages". The adapt stage is one of them, because this module cannot import it."""


@dataclass(frozen=True)
class Preset:
    """A set of numbers for one kind of generator.

    Settings are given by dotted name. Those that the chosen method or generator family does not have are left out, so
    that a preset can hold the settings of several methods.
    """

    settings: Mapping[str, Any]
    """Settings of every method."""
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Further settings of single methods, by the method's name; they come after the method's own `presets`."""
    extends: str = ""
    """Name of another preset, whose settings (and those of methods for it) come before these."""
    method: str = ""
    """Name of the method of runs that choose none; empty: that of the extended preset, or else IPL."""


PRESETS: Registry[Preset] = Registry(
    "preset",
    "zeroshift.presets",
    {
        "published": "zeroshift.methods.presets:PUBLISHED",
        "published-diffusion": "zeroshift.methods.presets:PUBLISHED_DIFFUSION",
        "standard": "zeroshift.methods.presets:STANDARD",
        "diffusion": "zeroshift.methods.presets:DIFFUSION",
    },
)
"""Presets by name. Entry points: "zeroshift.presets"."""
