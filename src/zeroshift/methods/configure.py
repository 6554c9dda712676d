"""Makes configurations from presets, changes single settings, and reads and writes config.json."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from zeroshift.config.changes import full_names, has_setting, near_names, replaced
from zeroshift.config.schema import build, field_docs, is_text, require
from zeroshift.config.settings import AdaptConfig, AdaptStage, GeneratorOptions, MethodOptions
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.architectures import architecture_of
from zeroshift.generators.checkpoints.catalogue import find_entry
from zeroshift.generators.registry import FAMILIES
from zeroshift.io.foreign import parse_json
from zeroshift.methods.registry import METHODS, PRESETS

if TYPE_CHECKING:
    from zeroshift.methods.base import Method

__all__ = [
    "MADE_WITH", "NEUTRAL_SETTINGS", "RENAMED", "Setting", "changed", "common_settings", "current_name",
    "default_config", "default_method", "flat", "from_json", "from_values", "preset", "resolve", "setting_names",
    "settings", "to_json",
]  # fmt: skip

DEFAULT_PRESET = "standard"
MADE_WITH = "made_with"
"""Group of config.json with versions and device, which are no settings."""
NEUTRAL_SETTINGS = frozenset(
    {
        "device", "compile", "compile_mode", "preview_every", "preview_samples", "checkpoint_every",
        "adapt.grad_accumulation_steps", "adapt.gradient_checkpointing", "sampling.gradient_checkpointing",
        "keep_checkpoints", "log_with",
    }
)  # fmt: skip
"""Settings that change the results by rounding at most. They may change when a run is resumed."""
# Names of version 0.1, which old run folders contain.
RENAMED = {
    "images": "source_images_dir",
    "latents": "num_latents",
    "truncation": "truncation_psi",
    "prompts.batch": "prompts.batch_size",
    "adapt.batch": "adapt.batch_size",
    "adapt.accumulate": "adapt.grad_accumulation_steps",
    "adapt.lr_last": "adapt.lr_final",
    "adapt.ema": "adapt.ema_decay",
    "adapt.layer_batch": "adapt.layer_batch_size",
    "adapt.noise": "adapt.noise_mode",
    "adapt.views": "adapt.augmentations",
    "adapt.recogniser": "adapt.identity_network",
    "adapt.lora": "adapt.lora_rank",
    "diffusion.clip": "sampling.clip_sample",
    "diffusion.each_step": "sampling.train_each_step",
    "diffusion.checkpointing": "sampling.gradient_checkpointing",
    "options.start": "anchor_start",
    "options.every": "anchor_every",
    "options.context": "prompt_context",
    "options.samples": "anchor_samples",
}
_RENAMED_GROUPS = {"diffusion.": "sampling.", "options.": ""}


@dataclass(frozen=True)
class Setting:
    """One setting of a configuration."""

    name: str
    """Dotted name."""
    value: Any
    kind: Any
    """Type of the value, as annotated."""
    doc: str
    """What it means."""
    owner: str
    """Attribute path of the dataclass that holds it, such as "options.prompts"; empty for AdaptConfig itself."""


def preset(name: str, target: str, **fields: Any) -> AdaptConfig:
    """A configuration with the numbers of a preset for the method.

    Args:
        name: a name of PRESETS.
        target: label of the new domain.
        fields: other settings, such as method="nada", seed=1, steps=20 or adapt={"lr": 0.01}; names as in `changed`.
            Without a generator or family among them, the sampling settings are the preset's, for a generator that
            `adapt` is given as an object.

    Raises:
        ZeroshiftError: if there is no such preset, method or setting.

    Examples:
        >>> config = preset("miniature", target="zombie", seed=1, steps=20, prompts={"steps": 40})
        >>> config.adapt.steps, config.options.prompts.steps
        (20, 40)
    """
    method_name = fields.get("method") or default_method(name)
    method = METHODS[method_name]
    named = "generator" in fields or "family" in fields
    generator = fields.get("generator", AdaptConfig.generator)
    family = fields.pop("family", "") or architecture_of(generator) or ""
    config = AdaptConfig(target, generator=generator, family=family, method=method_name, options=method.Options())
    settings = _preset_settings(name, method_name)
    own = {key.removeprefix("sampling.") for key in settings if key.startswith("sampling.")}
    sampling = _family_options(config) if named else _options_with(config, own)
    if sampling is not _family_options(config):
        family = ""  # that of the object that `adapt` will be given
    config = dataclasses.replace(config, family=family, sampling=sampling())
    config = changed(config, {key: value for key, value in settings.items() if has_setting(config, key)})
    return changed(config, {key: value for key, value in fields.items() if key not in ("method", "generator")})


def default_method(name: str) -> str:
    """The method of runs with a preset that choose none.

    Raises:
        ZeroshiftError: if there is no such preset.
    """
    chosen = PRESETS[name]
    return chosen.method or (default_method(chosen.extends) if chosen.extends else AdaptConfig.method)


def _preset_settings(name: str, method: str) -> dict[str, Any]:
    """The settings of a preset for a method, by dotted name, with those of the presets that it extends."""
    chosen = PRESETS[name]
    inherited = _preset_settings(chosen.extends, method) if chosen.extends else {}
    own = {**chosen.settings, **METHODS[method].presets.get(name, {}), **chosen.methods.get(method, {})}
    return {**inherited, **own}


def default_config(generator: str, preset_name: str | None = None, method: str | None = None) -> AdaptConfig:
    """The default configuration for a generator, with an empty target.

    The preset and the guidance encoder are those of the generator's catalogue entry, or else of its family.

    Args:
        preset_name: another preset than the generator's.
        method: None is the method of the preset.

    Raises:
        ZeroshiftError: if there is no such preset or method.

    Examples:
        >>> config = default_config("miniature", method="nada").replace(target="robot", steps=20)
        >>> config.target, config.adapt.steps
        ('robot', 20)
    """
    entry = find_entry(generator)
    family = entry.family if entry else architecture_of(generator) or ""
    require(
        not family or family in FAMILIES,
        f"{generator} holds a generator of the unknown family {family[:80]!r}. Install the package that provides it.",
    )
    name = preset_name or (entry.preset if entry else "") or (FAMILIES[family].preset if family else DEFAULT_PRESET)
    fields: dict[str, Any] = {} if method is None else {"method": method}
    config = preset(name, target="", generator=generator, family=family, **fields)
    return dataclasses.replace(config, encoders=(entry.encoder,)) if entry and entry.encoder else config


def changed(config: AdaptConfig, changes: Mapping[str, Any]) -> AdaptConfig:
    """The configuration with changed values by name, such as {"adapt.lr": 0.005, "method": "nada"}.

    Names are dotted, short ("steps", see `config.changes.SHORT`) or nested ({"adapt": {"lr": 0.005}}).
    A change of the method resets the method's own settings to their defaults. So does a change of the generator with
    those of its family, if the new one has others.

    Raises:
        ZeroshiftError: if there is no setting of this name.

    Examples:
        >>> config = changed(preset("miniature", target="zombie"), {"method": "nada", "adapt.lr": 0.005})
        >>> config.method, config.adapt.lr
        ('nada', 0.005)
    """
    if changes.get("generator", config.generator) != config.generator:
        config = _with_generator(config, changes["generator"])
    if changes.get("method", config.method) != config.method:
        options = METHODS[changes["method"]].Options()
        config = dataclasses.replace(config, method=changes["method"], options=options)
    for name, value in full_names(config, changes).items():
        if name == "method":
            continue
        if name.startswith("sampling.") and type(config.sampling) is GeneratorOptions:
            config = dataclasses.replace(config, sampling=_family_options(config)())
        if not has_setting(config, name):
            new_name = current_name(name)
            hint = f" It is called {new_name!r} now." if new_name != name else near_names(config, name)
            raise ZeroshiftError(f"There is no setting {name!r} for {config.method!r} with this generator.{hint}")
        config = replaced(config, name, value)
    return config


def settings(config: AdaptConfig) -> list[Setting]:
    """All settings that apply to the method and the generator family of a configuration, in order.

    Unused settings (`Method.unused_settings`, `Generator.unused_settings`) are left out.
    """
    method = METHODS[config.method]
    unused = set(method.unused_settings)
    if type(config.options) is MethodOptions:
        config = dataclasses.replace(config, options=method.Options())
    if config.family:
        family = FAMILIES[config.family]
        unused |= family.unused_settings
        if type(config.sampling) is GeneratorOptions:
            config = dataclasses.replace(config, sampling=family.Options())
    return [setting for setting in _walk(config, "", "") if setting.name not in unused]


def common_settings() -> list[Setting]:
    """The settings of all runs, without those of a method or generator family, with the defaults of the classes.

    Imports no method, unlike `settings`.
    """
    return list(_walk(AdaptConfig(target=""), "", ""))


def setting_names() -> set[str]:
    """Dotted names of the settings of all methods and generator families that can be imported."""
    names = {setting.name for setting in _walk(AdaptConfig(""), "", "")}
    for method in METHODS:
        with contextlib.suppress(ZeroshiftError):  # a broken package must not stop runs of other methods
            config = AdaptConfig("", options=METHODS[method].Options())
            names |= {setting.name for setting in _walk(config, "", "")}
    for family in FAMILIES:
        with contextlib.suppress(ZeroshiftError):
            config = AdaptConfig("", sampling=FAMILIES[family].Options())
            names |= {setting.name for setting in _walk(config, "", "")}
    return names


def flat(config: AdaptConfig) -> dict[str, Any]:
    """The applicable settings by dotted name, as in JSON: tuples are lists."""
    return {one.name: list(one.value) if isinstance(one.value, tuple) else one.value for one in settings(config)}


def resolve(config: AdaptConfig) -> AdaptConfig:
    """The validated configuration, with an instance of the method's own options.

    Raises:
        ZeroshiftError: naming the first setting with an invalid value.
    """
    require(isinstance(config.method, str), f"method is {config.method!r:.200}; it must be a string.")
    kind = METHODS[config.method].Options
    if type(config.options) is MethodOptions:
        config = dataclasses.replace(config, options=kind())
    if type(config.options) is not kind:
        names = ", ".join(spec.name for spec in dataclasses.fields(kind)) or "none"
        raise ZeroshiftError(
            f"The options are {type(config.options).__name__}, but the method {config.method!r} takes {kind.__name__} "
            f"(settings: {names})."
        )
    if config.family and type(config.sampling) is not GeneratorOptions:
        family = FAMILIES[config.family].Options
        if type(config.sampling) is not family:
            raise ZeroshiftError(
                f"The sampling settings are {type(config.sampling).__name__}, but a {config.family} generator takes "
                f"{family.__name__}."
            )
    config.validate()
    return config


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
        kind = _options_with(base, set(values["sampling"])) if unknown else _family_options(base)
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


def current_name(name: str) -> str:
    """The current name of a setting that version 0.1 called `name`; other names are returned unchanged."""
    if name in RENAMED:
        return RENAMED[name]
    for old, new in _RENAMED_GROUPS.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _from_version_0_1(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a 0.1 configuration under their current names, without those that do not apply.

    0.1 recorded the settings of all methods and families in every run.
    """
    method = _method_of(values)
    family = architecture_of(values.get("generator", AdaptConfig.generator)) or ""
    base = AdaptConfig(target="", method=values.get("method", AdaptConfig.method), family=family)
    base = dataclasses.replace(base, options=method.Options(), sampling=_family_options(base)())
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


def _family_options(config: AdaptConfig) -> type[GeneratorOptions]:
    family = config.family or architecture_of(config.generator) or ""
    return FAMILIES[family].Options if family else GeneratorOptions


def _options_with(config: AdaptConfig, names: set[str]) -> type[GeneratorOptions]:
    """The options of the named generator's family or, if it lacks some of these, of the first family that has them.

    A run with a generator object, which has no name, has the options of another family than the default generator's.
    """

    def has_all(kind: type[GeneratorOptions]) -> bool:
        return names <= {spec.name for spec in dataclasses.fields(kind)}

    kind = _family_options(config)
    if has_all(kind):
        return kind
    for family in FAMILIES:
        with contextlib.suppress(ZeroshiftError):  # a broken package must not stop runs of other families
            if has_all(FAMILIES[family].Options):
                return FAMILIES[family].Options
    return kind


def _with_generator(config: AdaptConfig, generator: str) -> AdaptConfig:
    """The configuration with another generator, the family that this has, and options of this family."""
    config = dataclasses.replace(config, generator=generator, family=architecture_of(generator) or "")
    if config.family and type(config.sampling) is not FAMILIES[config.family].Options:
        config = dataclasses.replace(config, sampling=FAMILIES[config.family].Options())
    return config


def _build_nested(cls: type, values: Mapping[str, Any]) -> Any:
    """`build` for a dataclass whose fields may be dataclasses."""
    types = get_type_hints(cls)
    built = {
        name: build(types[name], value, f"{name}.") if dataclasses.is_dataclass(types[name]) else value
        for name, value in values.items()
    }
    return build(cls, built)


def _walk(owner: Any, prefix: str, path: str) -> Iterator[Setting]:
    cls: type = type(owner)
    types, docs = get_type_hints(cls), field_docs(cls)
    for spec in dataclasses.fields(owner):
        value = getattr(owner, spec.name)
        inner = f"{path}.{spec.name}".lstrip(".")
        if dataclasses.is_dataclass(value):
            yield from _walk(value, "" if spec.name == "options" and not path else f"{prefix}{spec.name}.", inner)
        else:
            yield Setting(f"{prefix}{spec.name}", value, types[spec.name], docs.get(spec.name, ""), path)
