"""Variants of methods that a benchmark compares. Imports no heavy modules."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from zeroshift.errors import ZeroshiftError
from zeroshift.io.foreign import parse_json
from zeroshift.methods.registry import METHODS

__all__ = ["Variant", "method_variant", "parse_changes", "with_changes"]


@dataclass(frozen=True)
class Variant:
    """A method with its settings.

    Attributes:
        name: unique label in tables, images and paths.
        changes: settings by dotted name that differ from the default configuration of generator and method.
        generator: name or file of the source generator.
        bound: for reference results, the name of what they show; empty for adaptations.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    generator: str = "miniature"
    bound: str = ""


def method_variant(text: str) -> Variant:
    """A variant such as "ipl" or "ipl:adapt.steps=240".

    Raises:
        ZeroshiftError: for an unknown method or a malformed change.
    """
    name = text.partition(":")[0]
    METHODS[name]  # raises, and suggests the right name
    return with_changes(Variant(name, {"method": name}), text)


def with_changes(variant: Variant, text: str) -> Variant:
    """A variant with the changes in "NAME:SETTING=VALUE,...", and this text as its name.

    Raises:
        ZeroshiftError: for a malformed change.
    """
    listed = text.partition(":")[2]
    changes = re.split(r",(?=[\w.-]+=)", listed) if listed else []  # not at commas inside a list
    return replace(variant, name=text, changes={**variant.changes, **parse_changes(changes)})


def parse_changes(texts: Iterable[str]) -> dict[str, Any]:
    """{"adapt.lr": 0.005} from "adapt.lr=0.005". A value that is not JSON is a string.

    Raises:
        ZeroshiftError: for a string without "=".
    """
    changes: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ZeroshiftError(f"{text!r} changes no setting. Write NAME=VALUE, such as adapt.lr=0.005.")
        try:
            parsed = parse_json(value, text)
        except ZeroshiftError:
            parsed = value.strip()
        changes[name.strip().replace("-", "_")] = tuple(parsed) if isinstance(parsed, list) else parsed
    return changes
