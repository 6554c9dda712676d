"""Dataclasses of settings: typed checks, flat dotted names, and the documentation of each field."""

import ast
import dataclasses
import inspect
import itertools
import math
import textwrap
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from zeroshift.errors import ZeroshiftError

__all__ = ["build", "check_types", "field_docs", "is_text", "require"]

_LARGEST = 2**63  # whole numbers are below it: PyTorch takes no others


def require(condition: bool, message: str) -> None:
    """Raises ZeroshiftError with a message unless a condition holds."""
    if not condition:
        raise ZeroshiftError(message)


def is_text(value: Any) -> bool:
    """Whether a value is a string that files and file names can hold: valid Unicode without NUL characters."""
    return isinstance(value, str) and "\0" not in value and not any("\ud800" <= char <= "\udfff" for char in value)


def build(cls: type, values: Any, where: str = "") -> Any:
    """A dataclass from a JSON object; lists become tuples. Fields that are dataclasses must be built by the caller.

    Args:
        where: dotted name of this object with a final dot, for messages; empty at the top level.

    Raises:
        ZeroshiftError: if `values` is not a JSON object, or has unknown or missing fields.
    """
    require(isinstance(values, Mapping), f"{where.rstrip('.') or 'The configuration'} must be a JSON object.")
    fields = {spec.name: spec for spec in dataclasses.fields(cls)}
    unknown = [f"{where}{name}" for name in values if name not in fields]
    require(not unknown, f"Unknown settings: {', '.join(unknown):.200}. Remove them, or correct their names.")
    missing = [
        f"{where}{name}"
        for name, spec in fields.items()
        if name not in values and spec.default is spec.default_factory is dataclasses.MISSING
    ]
    require(not missing, f"Missing settings: {', '.join(missing)}.")
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


@cache
def field_docs(cls: type) -> Mapping[str, str]:
    """The docstring below each field of a dataclass, own fields before inherited ones."""
    docs: dict[str, str] = {}
    for base in cls.__mro__:
        if not dataclasses.is_dataclass(base):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError):  # defined in a notebook or an interactive session
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for spec, after in itertools.pairwise(body):
            if (
                isinstance(spec, ast.AnnAssign)
                and isinstance(spec.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                docs.setdefault(spec.target.id, inspect.cleandoc(str(after.value.value)))
    return docs


def check_types(config: Any, where: str = "") -> None:
    """Checks the type of every field of a dataclass and of the dataclasses in it.

    Raises:
        ZeroshiftError: naming the first field whose value has the wrong type.
    """
    for name, kind in get_type_hints(type(config)).items():
        if get_origin(kind) is not None and "ClassVar" in str(kind):
            continue
        value = getattr(config, name)
        if dataclasses.is_dataclass(kind):
            label = getattr(kind, "__name__", str(kind))
            article = "an" if label[0] in "AEIOU" else "a"
            require(isinstance(kind, type) and isinstance(value, kind), f"{where}{name} must be {article} {label}.")
            check_types(value, "" if name == "options" and not where else f"{where}{name}.")
        else:
            require(_fits(value, kind), f"{where}{name} is {value!r:.200}; it must be {_describe(kind)}.")


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
    if isinstance(value, bool):
        return kind is bool
    if kind is float and isinstance(value, float):
        return math.isfinite(value)
    if kind in (int, float):
        return isinstance(value, int) and abs(value) < _LARGEST
    return is_text(value) if kind is str else isinstance(value, kind)


def _describe(kind: Any) -> str:
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, inner))
    if get_origin(kind) is tuple:
        return f"a list in which every item is {_describe(inner[0])}"
    if inner:
        return " or ".join(map(_describe, inner))
    names = {int: "a whole number", float: "a finite number", str: "a string", bool: "true or false"}
    return names.get(kind, "nothing")
