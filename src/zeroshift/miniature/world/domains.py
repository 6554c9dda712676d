"""The domains of the miniature world: each is a medium (how a person is depicted) combined with a being (who).

Every pair can be rendered. The encoders are trained on the pairs in TRAINED; the HELD_OUT pairs combine media and
beings that each occur in training, but not together. Each domain declares which factors remain visible in it.
"""

from dataclasses import dataclass

from zeroshift.core.words import article
from zeroshift.errors import ZeroshiftError
from zeroshift.miniature.world.factors import FACTORS

__all__ = ["BEINGS", "DOMAINS", "HELD_OUT", "MEDIA", "SOURCE", "TRAINED", "Domain", "parse_domain"]

_COLORS = ("skin_tone", "hair_color", "eye_color", "clothing_color", "background_color", "background_lightness")
_LIGHT = ("light_x", "light_height")
_MOUTH = ("mouth_curve", "mouth_opening")
_SMALL = ("eye_color", "brow_tilt", "nose_width")
_COARSE = (*_SMALL, "eye_size", "hair_style", *_MOUTH, "jaw", "beard")  # not visible in broad strokes or large tiles
_HAIR = ("hair_color", "hair_length", "hair_style", "fringe")

# Hidden in all media: from u = 0.2 to 0.8, the twelve most changed pixels change by less than 0.3 (of the range 2).
_FAINT = ("brow_thickness",)
# Medium -> factors that it hides
MEDIA: dict[str, tuple[str, ...]] = {
    "photo": ("nose_width",),
    "pencil sketch": (*_COLORS, *_LIGHT, "brow_tilt"),
    "cartoon": ("light_height",),
    "pixel art": (*_SMALL, "eye_size", *_MOUTH, "earrings", "glasses", "hair_style", "clothing_pattern", *_LIGHT),
    "neon sign": (
        *("skin_tone", "eye_color", "eye_size", "brow_tilt"),
        *("background_color", "background_lightness", "clothing_pattern"),
        *_LIGHT,
    ),
    "watercolor": (*_COARSE, *_LIGHT),
    "stained glass": ("eye_color", "brow_tilt", *_LIGHT),
    "marble statue": (*_COLORS, "brow_tilt", "clothing_pattern"),
    "woodblock print": (*_COLORS, *_LIGHT),
    "mosaic": (*_COARSE, "eye_spacing", "earrings", "glasses", "clothing_pattern", *_LIGHT),
    "blueprint": (*_COLORS, *_LIGHT, "brow_tilt", "clothing_pattern"),
    "thermal image": (*_COLORS, *_LIGHT, *_SMALL, *_MOUTH, "eye_size", "hair_style", "earrings", "clothing_pattern"),
}
# Being -> factors that it hides
BEINGS: dict[str, tuple[str, ...]] = {
    "person": (),
    "zombie": ("skin_tone", "eye_color"),
    "alien": ("skin_tone", *_HAIR, "eye_color", "beard", "earrings", "brow_tilt", "nose_width", "jaw"),
    "elf": ("earrings",),
    "robot": ("skin_tone", *_HAIR, "eye_color", "beard", "earrings", "nose_width", "jaw"),
    "child": ("beard", "jaw"),
    "clown": ("skin_tone", "nose_width", "hair_style", "hair_length", "fringe"),
}


@dataclass(frozen=True)
class Domain:
    """A medium and a being, by their names in MEDIA and BEINGS."""

    medium: str
    being: str

    @property
    def label(self) -> str:
        """The short label: "photo", "zombie", "pencil sketch", "pencil sketch of a zombie"."""
        if self.medium == "photo":
            return "photo" if self.being == "person" else self.being
        return self.medium if self.being == "person" else self.full_label

    @property
    def full_label(self) -> str:
        """The label that names both: "photo of a person"."""
        return f"{self.medium} of {article(self.being)} {self.being}"

    @property
    def visible(self) -> tuple[str, ...]:
        """Names of the factors that are visible in an image of this domain."""
        hidden = {*_FAINT, *MEDIA[self.medium], *BEINGS[self.being]}
        return tuple(factor.name for factor in FACTORS if factor.name not in hidden)

    def __str__(self) -> str:
        return self.full_label


SOURCE = Domain("photo", "person")
DOMAINS: tuple[Domain, ...] = tuple(Domain(medium, being) for medium in MEDIA for being in BEINGS)
HELD_OUT: frozenset[Domain] = frozenset(
    Domain(medium, being)
    for medium, being in (
        ("pencil sketch", "zombie"), ("pencil sketch", "clown"), ("cartoon", "robot"), ("pixel art", "alien"),
        ("neon sign", "elf"), ("neon sign", "child"), ("watercolor", "zombie"), ("stained glass", "clown"),
        ("marble statue", "alien"), ("marble statue", "child"), ("woodblock print", "robot"), ("mosaic", "zombie"),
        ("blueprint", "elf"), ("thermal image", "robot"),
    )
)  # fmt: skip
TRAINED: tuple[Domain, ...] = tuple(domain for domain in DOMAINS if domain not in HELD_OUT)
_BY_LABEL = {name: domain for domain in DOMAINS for name in (domain.label, domain.full_label)} | {"person": SOURCE}


def parse_domain(label: str) -> Domain:
    """The domain of a label such as "zombie", "pencil sketch" or "a mosaic of an elf".

    Case and a leading article are ignored.

    Raises:
        ZeroshiftError: if there is no such domain.
    """
    words = label.strip().lower()
    for prefix in ("a ", "an ", "the "):
        words = words.removeprefix(prefix)
    if words not in _BY_LABEL:
        raise ZeroshiftError(
            f"The miniature world has no domain {label!r}. A domain is a medium ({', '.join(MEDIA)}), "
            f"a being ({', '.join(BEINGS)}), or 'MEDIUM of a BEING'."
        )
    return _BY_LABEL[words]
