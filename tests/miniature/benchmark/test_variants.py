"""Variants by name, with changes, and those of other packages."""

import pytest

from zeroshift.benchmark.variants import parse_changes
from zeroshift.errors import ZeroshiftError
from zeroshift.methods.base import Method
from zeroshift.methods.registry import METHODS
from zeroshift.miniature.benchmark.plan import Trial
from zeroshift.miniature.benchmark.variants import (
    TARGETS,
    VARIANTS,
    available_variants,
    parse_variant,
)
from zeroshift.miniature.world.domains import HELD_OUT, MEDIA, parse_domain


def test_the_shipped_variants_cover_all_shipped_methods() -> None:
    names = {variant.name for variant in VARIANTS}
    assert {"nada", "ipl", "ipl-label", "ipl-published", "air", "svl", "domain-vector"} <= names


def test_the_targets_cover_media_and_held_out_pairs() -> None:
    assert len(TARGETS) >= 12
    domains = [parse_domain(target) for target in TARGETS]
    assert sum(domain in HELD_OUT for domain in domains) >= 2, "held-out pairs"
    assert len({domain.medium for domain in domains}) >= len(MEDIA) // 2


def test_a_registered_method_is_a_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(Method):
        pass

    monkeypatch.setattr(METHODS, "_loaded", {**METHODS._loaded, "mine": Mine})
    assert list(available_variants())[-1] == "mine"
    variant = parse_variant("mine:adapt.steps=7")
    config = Trial(variant, "zombie", 0).config({})
    assert (config.method, config.generator, config.adapt.steps) == ("mine", "miniature", 7)


def test_changes_follow_a_colon() -> None:
    variant = parse_variant("ipl:prompts.base-text=label,adapt.augmentations=0")
    config = Trial(variant, "zombie", 0).config({})
    assert (config.options.prompts.base_text, config.adapt.augmentations) == ("label", 0)  # type: ignore[attr-defined]
    assert variant.name == "ipl:prompts.base-text=label,adapt.augmentations=0"


def test_commas_inside_a_list_do_not_separate_changes() -> None:
    variant = parse_variant('nada:adapt.betas=[0.0,0.99],adapt.layers=["b8.conv0","b16.conv0"],adapt.lr=0.5')
    expected = {"adapt.betas": (0.0, 0.99), "adapt.layers": ("b8.conv0", "b16.conv0"), "adapt.lr": 0.5}
    assert expected.items() <= variant.changes.items()
    assert parse_changes(['adapt.layers=["all"]', "adapt.lr=0.5"]) == {"adapt.layers": ("all",), "adapt.lr": 0.5}


@pytest.mark.parametrize(
    ("text", "message"), [("magic", "no method 'magic'"), ("ipl:views", "'views' changes no setting")]
)
def test_malformed_variants_are_refused(text: str, message: str) -> None:
    with pytest.raises(ZeroshiftError, match=message):
        parse_variant(text)
