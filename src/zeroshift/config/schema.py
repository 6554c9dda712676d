"""Frozen dataclasses from JSON and back: every value is checked against its field's type, and told in words."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from zeroshift.errors import ZeroshiftError

__all__ = ["build", "check_types", "require"]


def require(holds: bool, otherwise: str) -> None:
    """Raises ZeroshiftError with a sentence unless something holds."""
    if not holds:
        raise ZeroshiftError(otherwise)


def build(cls: type, values: Any, choose: Callable[[type, Mapping[str, Any]], type], where: str = "") -> Any:
    """A dataclass from the mapping that JSON gave, and the dataclasses in its fields.

    Args:
        choose: the class of a field, from the class that the field names and the mapping that the field stands in.
        where: "" or the dotted name of this mapping, with a dot at its end.

    Raises:
        ZeroshiftError: if something is no mapping, unknown or missing.
    """
    require(isinstance(values, Mapping), f"{where or 'The configuration'} must be a JSON object.")
    types = get_type_hints(cls)
    unknown = [f"{where}{name}" for name in values if name not in types]
    require(not unknown, f"Unknown in the configuration: {', '.join(unknown)}. Remove it, or correct its name.")
    built = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(types[name]):
            value = build(choose(types[name], values) if value else types[name], value, choose, f"{where}{name}.")
        built[name] = tuple(value) if isinstance(value, list) else value
    missing = [
        f"{where}{spec.name}"
        for spec in dataclasses.fields(cls)
        if spec.name not in built and spec.default is spec.default_factory is dataclasses.MISSING
    ]
    require(not missing, f"Missing in the configuration: {', '.join(missing)}.")
    return cls(**built)


def check_types(config: Any, where: str = "") -> None:
    """Raises ZeroshiftError naming the first field of a dataclass, or of one in it, whose value is of another type."""
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(kind):
            words = getattr(kind, "__name__", str(kind))
            require(isinstance(kind, type) and isinstance(value, kind), f"{where}{name} must be a {words}.")
            check_types(value, f"{where}{name}.")
        else:
            require(_fits(value, kind), f"{where}{name} is {value!r}; it must be {_words(kind)}.")


def _fits(value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if inner:  # X | None
        return any(_fits(value, one) for one in inner)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _words(kind: Any) -> str:
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, inner))
    if get_origin(kind) is tuple:
        return f"a list of {_words(inner[0])}"
    if inner:
        return " or ".join(map(_words, inner))
    return {int: "a whole number", float: "a finite number", str: "a text", bool: "true or false"}.get(kind, "nothing")
