import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.clip.encoder import Encoder, published_templates
from zeroshift.clip.labels import check_labels, label_difference, words_of
from zeroshift.clip.loading import load_encoder
from zeroshift.errors import ZeroshiftError
from zeroshift.miniature.benchmark.variants import TARGETS


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("miniature")


class Features:
    """An encoder with given features [T, E] per label."""

    def __init__(self, features: dict[str, Tensor]):
        self.features = features
        self.templates = published_templates()[: len(next(iter(features.values())))]

    def label_features(self, label: str) -> Tensor:
        return self.features[label]


@pytest.mark.parametrize("target", ["photo.", "Photo", " photo", "the photo", "a photo!", "(photo)"])
def test_labels_with_the_same_words_are_refused_with_their_difference(encoder: Encoder, target: str) -> None:
    with pytest.raises(ZeroshiftError, match=r"have the same words: the direction between them is only 0\.\d{3} long"):
        check_labels(encoder, "photo", target)


def test_a_difference_within_the_scatter_of_the_templates_is_refused(encoder: Encoder) -> None:
    with pytest.raises(ZeroshiftError, match=r"is 0\.022 long, 4\.9 standard errors over 16 templates"):
        check_labels(encoder, "photo", "photo photo")


@pytest.mark.parametrize("target", ["picture", "photos", "human", "..."])
def test_a_difference_as_small_as_that_of_punctuation_is_a_warning(encoder: Encoder, target: str) -> None:
    with pytest.warns(UserWarning, match=r"is weak: 0\.0\d\d long, where a full stop .* already changes 0\.058"):
        check_labels(encoder, "photo", target)


def test_real_directions_pass(encoder: Encoder) -> None:
    pairs = [("photo", target) for target in (*TARGETS, "sketch")] + [("zombie", "elf"), ("person", "robot")]
    for source, target in pairs:  # warnings are errors here
        check_labels(encoder, source, target)


def test_the_difference_is_measured_over_the_templates() -> None:
    random = torch.Generator().manual_seed(0)
    source, noise = (F.normalize(torch.randn(16, 8, generator=random), dim=-1) for _ in range(2))
    shift = torch.eye(8)[0] * 0.5
    fake = Features({"a": source, "b": source + shift + 0.1 * noise, "a.": source + 0.1, "a!": source})
    difference = label_difference(fake, "a", "b")  # type: ignore[arg-type]
    single = fake.features["b"] - source
    error = (single.var(dim=0) / 16).sum().sqrt()
    assert difference.length == pytest.approx(float(single.mean(dim=0).norm()))
    assert difference.errors == pytest.approx(float(single.mean(dim=0).norm() / error))
    assert difference.punctuation == pytest.approx(0.1 * 8**0.5)


def test_few_templates_are_judged_by_words_and_equality_only() -> None:
    fake = Features({name: torch.eye(3)[:2] for name in ("a", "a.", "a!")} | {"b": torch.eye(3)[1:]})
    fake.features |= {"c": fake.features["a"]}
    check_labels(fake, "a", "b")  # type: ignore[arg-type]
    with pytest.raises(ZeroshiftError, match="features are equal"):
        check_labels(fake, "a", "c")  # type: ignore[arg-type]


def test_a_label_that_fills_the_context_is_judged_without_punctuation(encoder: Encoder) -> None:
    longest = max(
        (" ".join(["zombie"] * number) for number in range(1, encoder.context_length)),
        key=lambda label: len(label) if _fits(encoder, label) else 0,
    )
    assert label_difference(encoder, longest, "robot").length > 0


def _fits(encoder: Encoder, label: str) -> bool:
    try:
        encoder.label_features(label)
    except ZeroshiftError:
        return False
    return True


def test_words_of_labels() -> None:
    assert words_of("The Pencil-sketch, of a Zombie!") == ["pencil", "sketch", "of", "zombie"]
    assert words_of("the") == ["the"]
    assert words_of("?! 😀") == []
    assert words_of("\uff30hoto") == ["photo"]


def test_labels_of_symbols_are_unknown(encoder: Encoder) -> None:
    with pytest.warns(UserWarning, match=r"was not trained on the word '\?\?\?'"):
        encoder.warn_unknown("???")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.warn_unknown("zombie")
