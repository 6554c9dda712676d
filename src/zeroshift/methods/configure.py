"""Makes configurations from presets, changes single settings, and lists settings."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from zeroshift.config.changes import full_names, has_setting, near_names, replaced
from zeroshift.config.renamed import current_name
from zeroshift.config.schema import field_docs, require
from zeroshift.config.settings import AdaptConfig, GeneratorOptions, MethodOptions
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.architectures import architecture_of
from zeroshift.generators.checkpoints.catalogue import find_entry
from zeroshift.generators.registry import FAMILIES
from zeroshift.methods.registry import METHODS, PRESETS
from zeroshift.methods.sampling_options import family_options, options_with

__all__ = [
    "NEUTRAL_SETTINGS", "Setting", "changed", "common_settings", "default_config", "default_method", "flat", "preset",
    "resolve", "setting_names", "settings",
]  # fmt: skip

DEFAULT_PRESET = "standard"
NEUTRAL_SETTINGS = frozenset(
    {
        "device", "compile", "compile_mode", "preview_every", "preview_samples", "checkpoint_every",
        "adapt.grad_accumulation_steps", "adapt.gradient_checkpointing", "sampling.gradient_checkpointing",
        "keep_checkpoints", "log_with",
    }
)  # fmt: skip
"""Settings that change the results by rounding at most. They may change when a run is resumed."""


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
    """A configuration with the numbers of a preset for a method: the one in `fields`, or else that of the preset.

    Args:
        name: a name of PRESETS.
        target: label of the new domain.
        fields: other settings, such as method="nada", seed=1, steps=20 or adapt={"lr": 0.01}; names as in `changed`.
            Without a generator or family among them, the sampling settings are the preset's, for a generator that
            `adapt` is given as an object.

    Raises:
        ZeroshiftError: if there is no such preset, method or setting.

    Examples:
        >>> config = preset("miniature", target="zombie", method="ipl", steps=20, prompts={"steps": 40})
        >>> config.adapt.steps, config.options.prompts.steps
        (20, 40)
    """
    method_name = fields["method"] if "method" in fields else default_method(name)
    method = METHODS[method_name]
    named = "generator" in fields or "family" in fields
    generator = fields.get("generator", AdaptConfig.generator)
    family = fields.pop("family", "") or architecture_of(generator) or ""
    config = AdaptConfig(target, generator=generator, family=family, method=method_name, options=method.Options())
    settings = _preset_settings(name, method_name)
    own = {key.removeprefix("sampling.") for key in settings if key.startswith("sampling.")}
    sampling = family_options(config) if named else options_with(config, own)
    if sampling is not family_options(config):
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
            config = dataclasses.replace(config, sampling=family_options(config)())
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


def _with_generator(config: AdaptConfig, generator: str) -> AdaptConfig:
    """The configuration with another generator, the family that this has, and options of this family."""
    config = dataclasses.replace(config, generator=generator, family=architecture_of(generator) or "")
    if config.family and type(config.sampling) is not FAMILIES[config.family].Options:
        config = dataclasses.replace(config, sampling=FAMILIES[config.family].Options())
    return config


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
