"""Changes single settings of a configuration, by their names."""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from zeroshift.errors import ZeroshiftError

__all__ = ["SHORT", "full_names", "has_setting", "near_names", "replaced"]

Config = TypeVar("Config")  # AdaptConfig; any frozen dataclass of settings

SHORT = {
    "encoder": "encoders",
    "steps": "adapt.steps",
    "lr": "adapt.lr",
    "batch_size": "adapt.batch_size",
    "layers": "adapt.layers",
}
"""Short names of common settings."""


def full_names(config: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes by dotted name, such as {"adapt.lr": 0.01}, from short names and nested mappings as well.

    For example {"steps": 20, "adapt": {"lr": 0.01}} gives {"adapt.steps": 20, "adapt.lr": 0.01}.
    """
    flat: dict[str, Any] = {}
    for name, value in changes.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": one for inner, one in full_names(None, value).items()}
        else:
            short = SHORT.get(name) if config is not None and not has_setting(config, name) else None
            flat[short or name] = value
    return flat


def has_setting(config: Any, name: str) -> bool:
    """Whether there is a setting, or a group of settings, of this dotted name."""
    owner = config
    for part in _path(config, name):
        if not dataclasses.is_dataclass(owner) or part not in {spec.name for spec in dataclasses.fields(owner)}:
            return False
        owner = getattr(owner, part)
    return True


def replaced(config: Config, name: str, value: Any) -> Config:
    """The configuration with one changed setting, or a changed group of settings.

    A list, or a single text, becomes a tuple where the setting is one.

    Raises:
        ZeroshiftError: if there is no such setting; the message names similar ones.
    """
    if not has_setting(config, name):
        raise ZeroshiftError(f"There is no setting {name!r}.{near_names(config, name)}")
    *path, last = _path(config, name)
    owners: list[Any] = [config]
    for part in path:
        owners.append(getattr(owners[-1], part))
    before = getattr(owners[-1], last)
    if dataclasses.is_dataclass(before) and not dataclasses.is_dataclass(value):
        inner = dataclasses.fields(before)[0].name if dataclasses.fields(before) else "NAME"
        raise ZeroshiftError(f"There is no setting {name!r}, but a group. Name one of its settings, as {name}.{inner}.")
    if isinstance(before, tuple) and isinstance(value, list | str):
        value = (value,) if isinstance(value, str) else tuple(value)
    for owner, part in zip(reversed(owners), reversed([*path, last]), strict=True):
        value = dataclasses.replace(owner, **{part: value})
    changed: Config = value
    return changed


def near_names(config: Any, name: str) -> str:
    """A hint that names the most similar settings; empty if none is similar."""
    names = list(dict.fromkeys(_names(config)))
    last = name.rpartition(".")[2]
    near = [one for one in names if one.rpartition(".")[2] == last] or difflib.get_close_matches(name, names, n=2)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def _path(config: Any, name: str) -> list[str]:
    """The attribute path of a dotted name: the method's own settings are in `options`."""
    first = name.split(".")[0]
    return (["options"] if hasattr(config.options, first) else []) + name.split(".")


def _names(config: Any, prefix: str = "") -> Iterator[str]:
    """The dotted names of all settings, and the short names."""
    for spec in dataclasses.fields(config):
        value, name = getattr(config, spec.name), f"{prefix}{spec.name}"
        if dataclasses.is_dataclass(value):
            yield from _names(value, "" if name == "options" else f"{name}.")
        else:
            yield name
    if not prefix:
        yield from SHORT
