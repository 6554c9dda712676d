"""Factors: how latents become positions and values."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroshift.miniature.world.factors import (
    BORDER,
    FACTORS,
    NUM_FACTORS,
    class_indices,
    class_weights,
    positions,
    values,
)
from zeroshift.miniature.world.renderer import sample_latents

SCALARS = [index for index, factor in enumerate(FACTORS) if not factor.is_class]
CLASSES = [index for index, factor in enumerate(FACTORS) if factor.is_class]
seeds = st.integers(0, 2**32)
# Latents closer to the borders of float32's normal CDF have the same position.
coordinates = st.lists(st.floats(-4, 4, width=32), min_size=2, max_size=8)


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


def moved(seed, index, numbers):
    """The same person with coordinate `index` at each of the numbers, in ascending order."""
    latents = sample_latents(seed, [0]).repeat(len(numbers), 1)
    latents[:, index] = torch.tensor(sorted(numbers))
    return latents


@given(seed=seeds, index=st.sampled_from(SCALARS), numbers=coordinates)
def test_a_scalar_increases_with_its_coordinate_within_its_range(seed, index, numbers):
    factor = FACTORS[index]
    value = values(moved(seed, index, numbers))[factor.name]
    assert (value.diff() >= -1e-6).all()
    assert factor.low <= value.min()
    assert value.max() <= factor.high


@given(seed=seeds, index=st.sampled_from(CLASSES), numbers=coordinates)
def test_classes_follow_their_order_and_at_most_two_are_mixed(seed, index, numbers):
    factor, latents = FACTORS[index], moved(seed, index, numbers)
    weights = values(latents)[factor.name]
    torch.testing.assert_close(weights.sum(1), torch.ones(len(numbers)))
    assert weights.min() >= 0
    assert ((weights > 0).sum(1) <= 2).all()
    assert (class_indices(latents)[factor.name].diff() >= 0).all()


@given(seed=seeds, scale=st.floats(0.1, 10))
def test_positions_do_not_depend_on_the_length_of_a_latent(seed, scale):
    latents = sample_latents(seed, [0])
    torch.testing.assert_close(positions(scale * latents), positions(latents), atol=1e-5, rtol=1e-4)
