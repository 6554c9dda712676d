"""The renderer: a latent, a domain and a noise seed determine an image, and visible factors show."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroshift.miniature.world.domains import DOMAINS, MEDIA, SOURCE, Domain, parse_domain
from zeroshift.miniature.world.factors import FACTORS
from zeroshift.miniature.world.renderer import render, sample_latents


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    return sample_latents(3, range(6))


@pytest.mark.parametrize("domain", DOMAINS, ids=str)
def test_every_pair_renders(domain, latents):
    images = render(latents[:3], domain)
    assert images.shape == (3, 3, 64, 64)
    assert images.dtype == torch.float32
    assert torch.isfinite(images).all()
    assert images.abs().max() <= 1
    assert images.std() > 0.1
    # People differ.
    assert (images[0] - images[1]).abs().mean() > 0.02


@pytest.mark.parametrize("medium", MEDIA)
def test_an_image_depends_on_its_own_latent_and_sample_alone(medium, latents):
    domain = Domain(medium, "zombie")
    together = render(latents, domain, noise_seed=5)
    alone = render(latents[4:5], domain, noise_seed=5, samples=[4])
    torch.testing.assert_close(together[4:5], alone, atol=1e-5, rtol=0)


def test_texture_depends_on_the_noise_seed_and_photos_have_none(latents):
    sketch = parse_domain("pencil sketch")
    assert (render(latents, sketch, 0) - render(latents, sketch, 1)).abs().mean() > 0.01
    assert torch.equal(render(latents, SOURCE, 0), render(latents, SOURCE, 1))


@pytest.mark.slow
def test_domains_look_different(latents):
    images = torch.stack([render(latents, domain) for domain in DOMAINS]).flatten(1)
    distances = torch.cdist(images, images) / images.shape[1] ** 0.5
    distances.fill_diagonal_(1)
    closest = int(distances.argmin())
    assert distances.min() > 0.03, (DOMAINS[closest // len(DOMAINS)], DOMAINS[closest % len(DOMAINS)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "domain",
    [*(Domain(medium, "person") for medium in MEDIA), Domain("cartoon", "elf"), Domain("mosaic", "child")],
    ids=str,
)
def test_visible_factors_change_the_image(domain, latents):
    visible = [index for index, factor in enumerate(FACTORS) if factor.name in domain.visible]
    moved = latents.repeat(len(visible), 2, 1, 1)  # [visible, low and high, people, 32]
    for row, index in enumerate(visible):
        moved[row, 0, :, index], moved[row, 1, :, index] = -1.6, 1.6
    people = list(range(len(latents))) * 2 * len(visible)
    low, high = render(moved.flatten(0, 2), domain, samples=people).view(*moved.shape[:3], 3, 64, 64).unbind(dim=1)
    largest = (low - high).abs().mean(dim=2).flatten(2).amax(dim=2).median(dim=1).values  # small features, few pixels
    hidden = [FACTORS[index].name for row, index in enumerate(visible) if largest[row] <= 0.15]
    assert not hidden, f"{domain} does not show {hidden}"


def test_images_are_continuous_across_class_borders(latents):
    index = next(i for i, factor in enumerate(FACTORS) if factor.name == "glasses")
    cut = torch.special.ndtri(torch.tensor(FACTORS[index].shares[0]))
    steps = latents[:1].repeat(65, 1)
    steps[:, index] = torch.linspace(float(cut) - 0.12, float(cut) + 0.12, 65)
    images = render(steps, SOURCE, samples=[0] * 65)
    whole = (images[0] - images[-1]).abs().mean()
    largest = (images[1:] - images[:-1]).abs().flatten(1).mean(1).max()
    assert whole > 0.01
    assert largest < 0.2 * whole


def test_wrong_shapes_are_refused(latents):
    with pytest.raises(ValueError, match="32"):
        render(latents[:, :5])
    with pytest.raises(ValueError, match="samples"):
        render(latents, samples=[1])


@settings(max_examples=10, deadline=None)
@given(domain=st.sampled_from(DOMAINS), rows=st.permutations(range(5)), count=st.integers(1, 5))
def test_any_batch_of_people_renders_the_same_images(domain, rows, count):
    people = sample_latents(11, range(5))
    rows = rows[:count]
    together = render(people, domain, noise_seed=2)
    torch.testing.assert_close(render(people[rows], domain, 2, rows), together[rows], atol=1e-5, rtol=0)
