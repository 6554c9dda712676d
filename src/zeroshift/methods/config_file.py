"""Writes configurations as JSON, and reads them in this version's form and that of 0.1."""

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_type_hints

from zeroshift.config.renamed import current_name
from zeroshift.config.schema import build, is_text, require
from zeroshift.config.settings import AdaptConfig, AdaptStage, GeneratorOptions
from zeroshift.generators.checkpoints.architectures import architecture_of
from zeroshift.generators.registry import FAMILIES
from zeroshift.io.foreign import parse_json
from zeroshift.methods.configure import flat, resolve
from zeroshift.methods.registry import METHODS
from zeroshift.methods.sampling_options import family_options, options_with

if TYPE_CHECKING:
    from zeroshift.methods.base import Method

__all__ = ["MADE_WITH", "from_json", "from_values", "to_json"]

MADE_WITH = "made_with"
"""Group of config.json with versions and device, which are no settings."""


def to_json(config: AdaptConfig, made_with: Mapping[str, str] | None = None) -> str:
    """The applicable settings as indented JSON, grouped by the first part of their names.

    Args:
        made_with: versions and device, a group that `from_json` does not read.
    """
    values: dict[str, Any] = {}
    for name, value in flat(config).items():
        *groups, last = name.split(".")
        inner = values
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value
    if made_with:
        values[MADE_WITH] = dict(made_with)
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def from_json(text: str) -> AdaptConfig:
    """The configuration that `to_json` wrote, in this version or in 0.1.

    Raises:
        ZeroshiftError: if the text is not JSON, has unknown or missing settings, or invalid values.
    """
    return from_values(parse_json(text, "The configuration"))


def from_values(values: Any) -> AdaptConfig:
    """The configuration in a parsed config.json, see `from_json`.

    Raises:
        ZeroshiftError: if there are unknown or missing settings, or invalid values.
    """
    _check_groups(values)
    if "diffusion" in values:
        values = _from_version_0_1(values)
    values = {name: value for name, value in values.items() if name != MADE_WITH}
    method = _method_of(values)
    options = {spec.name: values.pop(spec.name) for spec in dataclasses.fields(method.Options) if spec.name in values}
    values["options"] = _build_nested(method.Options, options)
    values["adapt"] = build(AdaptStage, values.get("adapt", {}), "adapt.")
    if values.get("sampling"):
        generator, family = values.get("generator", AdaptConfig.generator), values.get("family")
        base = AdaptConfig(target="", generator=generator, family=family or architecture_of(generator) or "")
        unknown = family == "" or not base.family  # recorded for a generator object before it was loaded
        kind = options_with(base, set(values["sampling"])) if unknown else family_options(base)
        values["sampling"] = build(kind, values["sampling"], "sampling.")
    else:
        values["sampling"] = GeneratorOptions()
    return resolve(build(AdaptConfig, values))


def _check_groups(values: Any) -> None:
    """Checks that a configuration has objects for its groups, and strings for what decides which settings it has."""
    require(isinstance(values, Mapping), "The configuration must be a JSON object.")
    for name in ("generator", "family", "method"):
        value = values.get(name, "")
        require(is_text(value), f"{name} is {value!r:.200}; it must be a string.")
    for name in ("adapt", "options", "sampling", "prompts", "diffusion"):
        value = values.get(name, {})
        require(isinstance(value, Mapping), f"{name} must be a JSON object.")
    if values.get("family"):
        _ = FAMILIES[values["family"]]  # raises for an unknown one


def _from_version_0_1(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a 0.1 configuration under their current names, without those that do not apply.

    0.1 recorded the settings of all methods and families in every run.
    """
    method = _method_of(values)
    family = architecture_of(values.get("generator", AdaptConfig.generator)) or ""
    base = AdaptConfig(target="", method=values.get("method", AdaptConfig.method), family=family)
    base = dataclasses.replace(base, options=method.Options(), sampling=family_options(base)())
    renamed: dict[str, Any] = {"family": family}
    for name, value in values.items():
        inner = {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, Mapping) else {name: value}
        for old, one in inner.items():
            *groups, last = current_name(old).split(".")
            if groups and groups[0] not in ("adapt", "sampling") and not hasattr(base.options, groups[0]):
                continue
            if groups == ["sampling"] and not hasattr(base.sampling, last):
                continue
            if name == "target_images" and base.method != "nada":
                continue  # the other methods ignored them
            place = renamed
            for group in groups:
                place = place.setdefault(group, {})
            place[last] = one
    return renamed


def _method_of(values: Mapping[str, Any]) -> "type[Method]":
    name = values.get("method", AdaptConfig.method)
    require(isinstance(name, str), f"method is {name!r:.200}; it must be a string.")
    return METHODS[name]


def _build_nested(cls: type, values: Mapping[str, Any]) -> Any:
    """`build` for a dataclass whose fields may be dataclasses."""
    types = get_type_hints(cls)
    built = {
        name: build(types[name], value, f"{name}.") if dataclasses.is_dataclass(types[name]) else value
        for name, value in values.items()
    }
    return build(cls, built)
