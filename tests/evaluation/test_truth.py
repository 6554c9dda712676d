"""The truth of catalogue entries, and of the miniature world."""

from dataclasses import replace

import pytest
import torch

from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.evaluation.references import References
from zeroshift.evaluation.truth import Truth, load_truth
from zeroshift.generators.checkpoints.catalogue import CatalogueEntry, find_entry
from zeroshift.io.images import eight_bit
from zeroshift.miniature.world.domains import parse_domain
from zeroshift.miniature.world.renderer import render, sample_latents


def truth_of(name: str) -> Truth:
    truth = load_truth(find_entry(name))
    assert truth is not None
    return truth


def test_generators_without_an_entry_or_a_truth_have_none() -> None:
    assert load_truth(None) is None
    assert load_truth(find_entry("ffhq")) is None
    assert References.from_truth(AdaptConfig(target="zombie", generator="ffhq"), 10, seed=0) is None


def test_true_images_are_rendered_only_for_latents_of_people() -> None:
    latents = sample_latents(3, range(2))
    images = truth_of("miniature").images("zombie", latents)
    assert images is not None
    assert torch.equal(images, render(latents, parse_domain("zombie")))
    assert truth_of("miniature").images("disney", latents) is None, "the renderer has no such domain"
    assert truth_of("miniature-diffusion").images("zombie", torch.randn(2, 3, 64, 64)) is None


@pytest.mark.parametrize("name", ["miniature", "miniature-diffusion", "miniature-autoencoder"])
def test_true_references_show_people_other_than_the_samples(name: str) -> None:
    references = References.from_truth(AdaptConfig(target="zombie", generator=name), 4, seed=5)
    assert references is not None
    assert (references.name, len(references)) == ("truth", 4)
    others = render(sample_latents(5, range(4, 8)), parse_domain("zombie"))
    assert torch.equal(references.batch(0, 4, 64), eight_bit(others))
    assert References.from_truth(AdaptConfig(target="disney", generator=name), 4, seed=5) is None


class _Instance:
    def images(self, target: str, latents: torch.Tensor) -> torch.Tensor:
        return latents


INSTANCE = _Instance()


def test_an_entry_names_a_class_or_an_object_that_can_be_imported() -> None:
    entry = CatalogueEntry("mine", "stylegan2", 16, "MIT", truth=f"{__name__}:INSTANCE")
    assert load_truth(entry) is INSTANCE
    assert isinstance(load_truth(replace(entry, truth=f"{__name__}:_Instance")), _Instance)
    for missing in (f"{__name__}:nothing", "no_such_module:truth"):
        with pytest.raises(ZeroshiftError, match="The truth of 'mine' cannot be imported"):
            load_truth(replace(entry, truth=missing))
