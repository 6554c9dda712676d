"""The renderer: a latent, a domain and a noise seed determine an image, and visible factors show."""

import pytest
import torch

from zeroshift.errors import ZeroshiftError
from zeroshift.miniature.world.domains import BEINGS, DOMAINS, HELD_OUT, MEDIA, SOURCE, TRAINED, Domain, parse_domain
from zeroshift.miniature.world.factors import BORDER, FACTORS, NUM_FACTORS, class_weights, positions, values
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


def test_domains_look_different(latents):
    images = torch.stack([render(latents, domain) for domain in DOMAINS]).flatten(1)
    distances = torch.cdist(images, images) / images.shape[1] ** 0.5
    distances.fill_diagonal_(1)
    closest = int(distances.argmin())
    assert distances.min() > 0.03, (DOMAINS[closest // len(DOMAINS)], DOMAINS[closest % len(DOMAINS)])


@pytest.mark.parametrize(
    "domain",
    [*(Domain(medium, "person") for medium in MEDIA), Domain("cartoon", "elf"), Domain("mosaic", "child")],
    ids=str,
)
def test_visible_factors_change_the_picture(domain, latents):
    base = render(latents, domain)
    for index, factor in enumerate(FACTORS):
        if factor.name not in domain.visible:
            continue
        low, high = latents.clone(), latents.clone()
        low[:, index], high[:, index] = -1.6, 1.6
        moved = (render(low, domain) - render(high, domain)).abs().mean(dim=1).flatten(1)
        some = moved.amax(dim=1).median()  # small features change few pixels
        assert some > 0.15, f"{factor.name} does not show in {domain}"
    assert torch.equal(base, render(latents, domain))


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


def test_factors_have_their_ranges_and_shares():
    latents = sample_latents(0, range(4000))
    u = positions(latents)
    assert u.shape == (4000, NUM_FACTORS)
    assert (u.mean(0) - 0.5).abs().max() < 0.03
    # the length of a latent says nothing, as in StyleGAN2
    torch.testing.assert_close(positions(latents * 3), u)
    for name, value in values(latents).items():
        factor = next(factor for factor in FACTORS if factor.name == name)
        if factor.is_class:
            torch.testing.assert_close(value.sum(1), torch.ones(4000))
            assert value.min() >= 0
            assert (value.mean(0) - torch.tensor(factor.shares)).abs().max() < 0.04
            assert (value.max(1).values < 0.999).float().mean() < 2.5 * BORDER * len(factor.classes)
        else:
            assert factor.low <= value.min()
            assert value.max() <= factor.high


def test_class_weights_are_even_at_a_border():
    factor = FACTORS[9]
    weights = class_weights(factor, torch.tensor([factor.shares[0]], dtype=torch.float64))
    torch.testing.assert_close(weights[0, :2], torch.tensor([0.5, 0.5], dtype=torch.float64), atol=1e-6, rtol=0)


def test_labels_parse_and_held_out_pairs_combine_trained_words():
    assert len(MEDIA) >= 12
    assert len(BEINGS) >= 7
    assert len(HELD_OUT) >= 12
    assert set(TRAINED) | HELD_OUT == set(DOMAINS)
    assert SOURCE in TRAINED
    # Every word of a held-out pair occurs in a training pair.
    assert {d.medium for d in TRAINED} == set(MEDIA)
    assert {d.being for d in TRAINED} == set(BEINGS)
    for domain in DOMAINS:
        assert parse_domain(domain.label) == domain
        assert parse_domain("An " + domain.full_label) == domain
        assert {"x_position", "yaw"} <= set(domain.visible)
    with pytest.raises(ZeroshiftError, match="no domain 'disney'"):
        parse_domain("disney")


def test_wrong_shapes_are_refused(latents):
    with pytest.raises(ValueError, match="32"):
        render(latents[:, :5])
    with pytest.raises(ValueError, match="samples"):
        render(latents, samples=[1])
