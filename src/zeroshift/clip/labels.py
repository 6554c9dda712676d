"""Whether an encoder tells two labels apart, judged before a run: it would train on noise to the end as well."""

import contextlib
import re
import unicodedata
import warnings
from dataclasses import dataclass

from torch import Tensor

from zeroshift.clip.encoder import Encoder, shorten
from zeroshift.errors import ZeroshiftError

__all__ = ["LabelDifference", "check_labels", "label_difference", "weak_direction", "words_of"]

MIN_TEMPLATES = 8
"""Fewer templates are too few for a judgement on their scatter."""
MIN_ERRORS = 5.0
"""Smallest length of a direction, in standard errors of the mean over the templates. Without a difference: about 1."""
WEAK = 1.5
"""A direction is weak if it is shorter than this times the change that a punctuation mark makes."""

_ARTICLES = frozenset({"a", "an", "the"})
_MARKS = (".", "!")


@dataclass(frozen=True)
class LabelDifference:
    """The direction from a source label to a target label in an encoder."""

    length: float
    """Norm of the mean over the templates of: normalized feature of the target minus that of the source."""
    errors: float
    """The length in standard errors of that mean; infinite if all templates have the same difference."""
    punctuation: float
    """The length of the direction from the source label to itself with a full stop or an exclamation mark."""


def words_of(label: str) -> list[str]:
    """The words of a label in lower case, without articles, punctuation and symbols; empty for a label of symbols."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", label).casefold())
    return [word for word in words if word not in _ARTICLES] or words


def label_difference(encoder: Encoder, source: str, target: str) -> LabelDifference:
    """Measures the direction from `source` to `target` over the templates of the encoder."""
    origin = encoder.label_features(source)
    length, errors = _mean_and_errors(encoder.label_features(target) - origin)
    marked = [0.0]
    for mark in _MARKS:
        with contextlib.suppress(ZeroshiftError):  # the label fills the context of the encoder
            marked.append(_mean_and_errors(encoder.label_features(source + mark) - origin)[0])
    return LabelDifference(length, errors, max(marked))


def _mean_and_errors(differences: Tensor) -> tuple[float, float]:
    """Length of the mean of [T, E], and that length in standard errors of the mean."""
    mean, number = differences.mean(dim=0), len(differences)
    length = float(mean.norm())
    error = float(((differences - mean).square().sum() / (max(1, number - 1) * number)).sqrt())
    return length, length / error if error else float("inf") if length else 0.0


def check_labels(encoder: Encoder, source: str, target: str) -> None:
    """Warns of a weak direction between two labels, and refuses one that is noise, see `weak_direction`."""
    if note := weak_direction(encoder, source, target):
        warnings.warn(note, stacklevel=2)


def weak_direction(encoder: Encoder, source: str, target: str) -> str:
    """A sentence about a weak direction between two labels; empty if it is strong enough.

    Raises:
        ZeroshiftError: if the labels have the same words, or their features are equal, or differ by less than
            `MIN_ERRORS` standard errors over the templates.
    """
    difference = label_difference(encoder, source, target)
    names = f"{shorten(source)!r} and {shorten(target)!r}"
    if words_of(source) and words_of(source) == words_of(target):
        raise ZeroshiftError(
            f"The labels {names} have the same words: the direction between them is only {difference.length:.3f} long "
            "and means nothing. Name another target."
        )
    if not difference.length > 0:
        raise ZeroshiftError(f"The encoder does not tell the labels {names} apart: their features are equal.")
    number = len(encoder.templates)
    if number < MIN_TEMPLATES:
        return ""
    if difference.errors < MIN_ERRORS:
        raise ZeroshiftError(
            f"The encoder hardly tells the labels {names} apart: the direction between them is {difference.length:.3f} "
            f"long, {difference.errors:.1f} standard errors over {number} templates, where at least {MIN_ERRORS:g} are "
            "needed. Describe the target in other words."
        )
    if difference.length < WEAK * difference.punctuation:
        return (
            f"The direction between the labels {names} is weak: {difference.length:.3f} long, where a full stop or an "
            f"exclamation mark after the source label already changes {difference.punctuation:.3f}. The result may be "
            "meaningless. Describe the target in other words."
        )
    return ""
