"""Variants of methods that a benchmark compares, and the reference results. Imports no heavy modules."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from zeroshift.errors import ZeroshiftError
from zeroshift.io.foreign import parse_json
from zeroshift.methods.registry import METHODS

__all__ = [
    "BOUND_NAMES", "FITTED", "SOURCES", "TARGETS", "TRUTH", "VARIANTS", "Variant", "available_variants",
    "parse_changes", "parse_variant",
]  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """A method with its settings.

    Attributes:
        name: unique label in tables, images and paths.
        changes: settings by dotted name that differ from the default configuration of generator and method.
        generator: name of the source generator.
        bound: for reference results, a name in `bounds.BOUNDS`; empty for adaptations.
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    generator: str = "miniature"
    bound: str = ""


VARIANTS: tuple[Variant, ...] = (
    Variant("nada", {"method": "nada"}),
    Variant("ipl", {"method": "ipl"}),
    Variant("ipl-label", {"method": "ipl", "prompts.base_text": "label"}),
    Variant("ipl-published", {"method": "ipl", "prompts.base_text": "published"}),
    Variant("air", {"method": "air"}),
    Variant("svl", {"method": "svl"}),
    Variant("domain-vector", {"method": "domain-vector"}),
    Variant("diffusionclip", {"method": "nada"}, "miniature-diffusion"),
    Variant("diff-ipl", {"method": "ipl"}, "miniature-diffusion"),
    Variant("diffusionclip-autoencoder", {"method": "nada"}, "miniature-autoencoder"),
    Variant("diff-ipl-autoencoder", {"method": "ipl"}, "miniature-autoencoder"),
)
# The unadapted generators: the lower bound.
SOURCES = {
    "miniature": Variant("source", bound="source"),
    "miniature-diffusion": Variant("source-diffusion", generator="miniature-diffusion", bound="source"),
    "miniature-autoencoder": Variant("source-autoencoder", generator="miniature-autoencoder", bound="source"),
}
# The same networks trained on true images: the upper bound.
FITTED = {
    "miniature": Variant("fitted", bound="fitted"),
    "miniature-diffusion": Variant("fitted-diffusion", generator="miniature-diffusion", bound="fitted-diffusion"),
    "miniature-autoencoder": Variant("fitted-autoencoder", generator="miniature-autoencoder", bound="fitted-diffusion"),
}
TRUTH = Variant("truth", bound="truth")
BOUND_NAMES = frozenset(variant.name for variant in (*SOURCES.values(), *FITTED.values(), TRUTH))
# Single beings and media, then pairs; those of `domains.HELD_OUT` are not in the training data of the encoders.
TARGETS = (
    "zombie", "alien", "robot", "clown", "elf", "pencil sketch", "cartoon", "marble statue", "neon sign",
    "mosaic of a robot", "pencil sketch of a zombie", "watercolor of a zombie", "cartoon of a robot",
)  # fmt: skip


def available_variants() -> dict[str, Variant]:
    """The shipped variants, and every other registered method as a variant on the miniature StyleGAN2."""
    shipped = {variant.name: variant for variant in VARIANTS}
    return shipped | {name: Variant(name, {"method": name}) for name in METHODS if name not in shipped}


def parse_variant(text: str) -> Variant:
    """A variant by name, optionally with changes: "ipl:prompts.domain_weight=2,adapt.augmentations=0".

    Raises:
        ZeroshiftError: for an unknown name or a malformed change.
    """
    name, _, listed = text.partition(":")
    variants = available_variants()
    if name not in variants:
        raise ZeroshiftError(f"The benchmark has no method {name!r}. Available: {', '.join(variants)}.")
    changes = re.split(r",(?=[\w.-]+=)", listed) if listed else []  # not at commas inside a list
    return replace(variants[name], name=text, changes={**variants[name].changes, **parse_changes(changes)})


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
