"""Captions of the miniature world: a grammar that names the medium, the being and some visible factors.

Example: "a pencil sketch of a smiling elf with long wavy hair and round glasses, looking left". A caption names only
factors that are visible in its domain: scalars only if they are clearly low or high (u < 1/3 or u > 2/3), classes only
away from their borders. `labels` and TEMPLATES give the short texts that adaptation uses.

The shipped encoders were trained on these texts, so their words and their random choices must not change.
"""

import random
from collections.abc import Callable, Sequence

import torch

from zeroshift.core.words import article
from zeroshift.miniature.world.domains import BEINGS, MEDIA, SOURCE, TRAINED, Domain
from zeroshift.miniature.world.factors import BORDER, FACTOR_INDEX, FACTORS, positions

__all__ = [
    "TEMPLATES",
    "attributes",
    "being_text",
    "caption",
    "captions",
    "known_labels",
    "known_words",
    "labels",
    "medium_text",
]

# They fit labels of all kinds: "zombie", "pencil sketch", "pencil sketch of a zombie".
TEMPLATES: tuple[str, ...] = (
    "{}", "a {}", "the {}", "a picture of a {}", "an image of a {}", "a picture of the {}", "an image of the {}",
    "this is a {}", "here is a {}", "one {}", "a nice {}", "a good {}", "a small {}", "a clear {}", "a typical {}",
    "a portrait, {}",
)  # fmt: skip

SIDE = 1 / 3  # a scalar is named if its position is below this or above one minus this

# Scalar factor -> (kind, phrases if low, phrases if high). Kinds: "adj" precedes the being, "with" is listed after the
# word "with", "tail" follows a comma.
_SCALARS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "x_position": ("tail", ("placed to the left",), ("placed to the right",)),
    "y_position": ("tail", ("high in the picture",), ("low in the picture",)),
    "scale": ("tail", ("far away",), ("close up",)),
    "yaw": ("tail", ("looking left", "turned to the left"), ("looking right", "turned to the right")),
    "tilt": ("tail", ("head tilted to the left",), ("head tilted to the right",)),
    "face_width": ("with", ("a slim face",), ("a broad face",)),
    "face_height": ("with", ("a short face",), ("a long face",)),
    "jaw": ("with", ("a pointed chin",), ("a square jaw",)),
    "skin_tone": ("with", ("fair skin", "light skin"), ("dark skin",)),
    "eye_spacing": ("with", ("close-set eyes",), ("wide-set eyes",)),
    "brow_tilt": ("with", ("worried brows",), ("stern brows",)),
    "brow_thickness": ("with", ("thin brows",), ("thick brows",)),
    "nose_width": ("with", ("a narrow nose",), ("a wide nose",)),
    "mouth_curve": ("adj", ("frowning",), ("smiling",)),
    "mouth_opening": ("with", ("a closed mouth",), ("an open mouth",)),
    "shoulder_width": ("with", ("narrow shoulders",), ("wide shoulders",)),
    "light_x": ("tail", ("lit from the left",), ("lit from the right",)),
    "light_height": ("tail", ("lit from below",), ("lit from above",)),
}
# Class factor -> class -> (kind, phrases)
_CLASSES: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    "fringe": {
        "none": ("with", ("no fringe",)),
        "full": ("with", ("a full fringe", "bangs")),
        "side": ("with", ("a side fringe",)),
    },
    "glasses": {
        "none": ("with", ("no glasses",)),
        "round": ("with", ("round glasses",)),
        "square": ("with", ("square glasses",)),
    },
    "beard": {
        "none": ("with", ("no beard",)),
        "moustache": ("with", ("a moustache",)),
        "full": ("with", ("a full beard", "a beard")),
    },
    "hat": {
        "none": ("with", ("no hat",)),
        "beanie": ("tail", ("in a beanie", "wearing a beanie")),
        "brimmed": ("tail", ("in a brimmed hat", "wearing a brimmed hat")),
    },
    "earrings": {"none": ("with", ("no earrings",)), "gold": ("with", ("gold earrings", "earrings"))},
}
# Phrases that combine several factors: the adjectives of any non-empty subset, in this order, before the noun.
_HAIR = ("hair_length", "hair_style", "hair_color")
_EYES = ("eye_size", "eye_color")
_CLOTHES = ("clothing_pattern", "clothing_color")
_BACKGROUND = ("background_lightness", "background_color")
_SIZES = {"eye_size": ("small", "large"), "background_lightness": ("dark", "light")}
_COMPOUNDS: tuple[tuple[tuple[str, ...], str, tuple[str, ...]], ...] = (
    (_HAIR, "with", ("{} hair",)),
    (_EYES, "with", ("{} eyes",)),
    (_CLOTHES, "tail", ("wearing {} clothes", "in {} clothes")),
    (_BACKGROUND, "tail", ("on {a} {} background", "in front of {a} {} wall")),
)

_HEADS = (
    "{a} {medium} of {b} {being}",
    "{a} {medium} of {b} {being}",
    "{a} {medium} showing {b} {being}",
    "the {medium} of {b} {being}",
)
_PHOTO_HEADS = (*_HEADS, "{b} {being}", "{b} {being}")  # no medium means a photo
_PERSON_NOUNS = ("person", "person", "person", "someone")


def _class_at(name: str, u: float) -> str | None:
    """The class at position u; None near a class border."""
    factor = FACTORS[FACTOR_INDEX[name]]
    upper = 0.0
    for word, share in zip(factor.classes, factor.shares, strict=True):
        lower, upper = upper, upper + share
        if u < upper or word == factor.classes[-1]:
            inside = (lower == 0 or u > lower + BORDER) and (word == factor.classes[-1] or u < upper - BORDER)
            return word if inside else None
    raise AssertionError("unreachable")


def _side(u: float) -> int | None:
    """0 if a scalar is clearly low, 1 if clearly high, None in between."""
    return 0 if u < SIDE else 1 if u > 1 - SIDE else None


def _word(name: str, u: float) -> str | None:
    """The adjective for one factor of a combined phrase; None if the factor is ambiguous."""
    if name in _SIZES:
        side = _side(u)
        return None if side is None else _SIZES[name][side]
    return _class_at(name, u)


def _phrases(domain: Domain, u: Sequence[float], rng: random.Random) -> list[tuple[int, str, str]]:
    """All phrases that apply: (number of factors named, kind, words)."""
    visible = set(domain.visible)
    phrases: list[tuple[int, str, str]] = []
    for name, (kind, low, high) in _SCALARS.items():
        side = _side(u[FACTOR_INDEX[name]])
        if name in visible and side is not None:
            phrases.append((1, kind, rng.choice((low, high)[side])))
    for name, classes in _CLASSES.items():
        word = _class_at(name, u[FACTOR_INDEX[name]])
        if name in visible and word is not None:
            kind, choices = classes[word]
            phrases.append((1, kind, rng.choice(choices)))
    for names, kind, forms in _COMPOUNDS:
        words = [w for name in names if name in visible and (w := _word(name, u[FACTOR_INDEX[name]])) is not None]
        if words:
            chosen = [word for word in words if rng.random() < 0.75] or [rng.choice(words)]
            phrases.append((len(chosen), kind, rng.choice(forms).format(" ".join(chosen), a=article(chosen[0]))))
    return phrases


def caption(domain: Domain, u: Sequence[float], rng: random.Random, num_details: int = 6) -> str:
    """One caption of a person in a domain.

    Args:
        u: the person's 32 factor positions in (0, 1), see `factors.positions`.
        rng: makes all random choices.
        num_details: approximate number of factors to name; fewer if fewer can be named.
    """
    phrases = _phrases(domain, u, rng)
    rng.shuffle(phrases)
    chosen: list[tuple[str, str]] = []
    for count, kind, words in phrases:
        if num_details <= 0:
            break
        num_details -= count
        chosen.append((kind, words))
    adjectives = "".join(f"{words} " for kind, words in chosen if kind == "adj")
    being = domain.being
    if being == "person" and not adjectives:
        being = rng.choice(_PERSON_NOUNS)
    head = rng.choice(_PHOTO_HEADS if domain.medium == "photo" else _HEADS).format(
        medium=domain.medium, being=adjectives + being, a=article(domain.medium),
        b="" if being == "someone" else article(adjectives or being),
    )  # fmt: skip
    described = [words for kind, words in chosen if kind == "with"]
    tails = [words for kind, words in chosen if kind == "tail"]
    if described:
        last = described.pop()
        tails.insert(0, f"with {', '.join(described)} and {last}" if described else f"with {last}")
        head = f"{head} {tails.pop(0)}"
    return ", ".join([head, *tails]).replace("  ", " ").strip()


def captions(
    latents: torch.Tensor,
    domains: Sequence[Domain],
    *,
    seed: str,
    num_details: Callable[[random.Random], int] | int = 6,
) -> list[str]:
    """One caption per row of latents [N, 32], each in its own domain. Row i depends on `seed` and i alone.

    Args:
        num_details: as in `caption`, or a function that draws it from the row's random generator.
    """
    rows = positions(latents).tolist()
    result = []
    for index, (u, domain) in enumerate(zip(rows, domains, strict=True)):
        rng = random.Random(f"{seed}/{index}")
        count = num_details if isinstance(num_details, int) else num_details(rng)
        result.append(caption(domain, u, rng, count))
    return result


def attributes() -> dict[str, tuple[str, ...]]:
    """The phrases of captions by factor, for photos of people: {"skin_tone": ("with fair skin", ...), ...}."""
    found: dict[str, tuple[str, ...]] = {}
    for name, (kind, low, high) in _SCALARS.items():
        found[name] = tuple(_with(kind, words) for words in (*low, *high))
    for name, classes in _CLASSES.items():
        found[name] = tuple(_with(kind, words) for kind, forms in classes.values() for words in forms)
    for names, kind, forms in _COMPOUNDS:
        for name in names:
            words = _SIZES.get(name, FACTORS[FACTOR_INDEX[name]].classes)
            found[name] = tuple(_with(kind, form.format(word, a=article(word))) for word in words for form in forms)
    return {name: found[name] for name in SOURCE.visible}


def _with(kind: str, words: str) -> str:
    return f"with {words}" if kind == "with" else words


def labels(domain: Domain) -> tuple[str, ...]:
    """All labels of a domain, such as "zombie" and "photo of a zombie"; SOURCE has "person" too."""
    extra = ("person",) if domain == SOURCE else ()
    return tuple(dict.fromkeys((domain.label, domain.full_label, *extra)))


def medium_text(medium: str) -> str:
    """The text for a medium with any being."""
    return f"{article(medium)} {medium} of anything"


def being_text(being: str) -> str:
    """The text for a being in any medium."""
    return f"any depiction of {article(being)} {being}"


def known_labels() -> tuple[str, ...]:
    """The labels of all domains that the encoders are trained on, sorted."""
    return tuple(sorted({name for domain in TRAINED for name in labels(domain)}))


def known_words() -> tuple[str, ...]:
    """All words that labels, templates and captions can contain, sorted."""
    texts = [*TEMPLATES, *_PHOTO_HEADS, *_PERSON_NOUNS, "and", "with", "a", "an"]
    texts += [text(name) for text, names in ((medium_text, MEDIA), (being_text, BEINGS)) for name in names]
    texts += [words for _, low, high in _SCALARS.values() for words in (*low, *high)]
    texts += [words for classes in _CLASSES.values() for _, forms in classes.values() for words in forms]
    for names, _, forms in _COMPOUNDS:
        texts += forms
        for name in names:
            texts += _SIZES.get(name, FACTORS[FACTOR_INDEX[name]].classes)
    words = {word.strip(",.") for text in texts for word in text.replace("-", " ").split() if "{" not in word}
    return tuple(sorted(word for word in words if word))
