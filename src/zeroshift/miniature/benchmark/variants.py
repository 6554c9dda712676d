"""Variants of methods that a benchmark compares, and the reference results. Imports no heavy modules."""

from zeroshift.benchmark.variants import Variant, with_changes
from zeroshift.errors import ZeroshiftError
from zeroshift.methods.registry import METHODS

__all__ = [
    "BOUND_NAMES", "FITTED", "SOURCES", "TARGETS", "TRUTH", "VARIANTS", "available_variants", "parse_variant",
]  # fmt: skip


VARIANTS: tuple[Variant, ...] = (
    Variant("nada", {"method": "nada"}),
    Variant("ipl", {"method": "ipl"}),
    Variant("ipl-label", {"method": "ipl", "prompts.base_text": "label"}),
    # The published program shows the encoder images that leave the range.
    Variant(
        "ipl-published",
        {"method": "ipl", "prompts.base_text": "published", "adapt.clamp_images": False, "adapt.range_weight": 0.0},
    ),
    Variant("air", {"method": "air"}),
    Variant("svl", {"method": "svl"}),
    Variant("domain-vector", {"method": "domain-vector"}),
    Variant("diffusionclip", {"method": "nada"}, "miniature-diffusion"),
    Variant("diff-ipl", {"method": "ipl"}, "miniature-diffusion"),
    Variant("diffusionclip-autoencoder", {"method": "nada"}, "miniature-autoencoder"),
    Variant("diff-ipl-autoencoder", {"method": "ipl"}, "miniature-autoencoder"),
    Variant("compass-diffusion", {"method": "compass"}, "miniature-diffusion"),
    Variant("compass-autoencoder", {"method": "compass"}, "miniature-autoencoder"),
    Variant("scaffold-diffusion", {"method": "scaffold"}, "miniature-diffusion"),
    Variant("scaffold-autoencoder", {"method": "scaffold"}, "miniature-autoencoder"),
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
    name = text.partition(":")[0]
    variants = available_variants()
    if name not in variants:
        raise ZeroshiftError(f"The benchmark has no method {name!r}. Available: {', '.join(variants)}.")
    return with_changes(variants[name], text)
