"""Draws are a function of (seed, purpose, step, sample): nothing else changes them."""

from collections.abc import Sequence

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroshift.core.rng import normal, stream

SEEDS = st.integers(0, 2**31 - 1)
PURPOSES = st.sampled_from(["latents", "noise", "augment", "layers"])
STEPS = st.integers(0, 10**6)
SAMPLES = st.lists(st.integers(0, 10**6), min_size=1, max_size=6)
SHAPES = st.lists(st.integers(1, 4), max_size=3)

few = settings(max_examples=60, deadline=None)


@few
@given(SEEDS, PURPOSES, STEPS, SAMPLES, SHAPES, st.integers(0, 6))
def test_splitting_a_batch_changes_no_sample(
    seed: int, purpose: str, step: int, samples: list[int], shape: list[int], cut: int
) -> None:
    whole = normal(shape, seed, purpose, step, samples=samples)
    assert whole.shape == (len(samples), *shape)
    parts = [normal(shape, seed, purpose, step, samples=part) for part in (samples[:cut], samples[cut:])]
    assert torch.equal(torch.cat(parts), whole)
    for row, sample in zip(whole, samples, strict=True):
        assert torch.equal(normal(shape, seed, purpose, step, samples=[sample])[0], row)


@few
@given(SEEDS, PURPOSES, STEPS, SAMPLES, st.randoms(use_true_random=False))
def test_order_changes_no_sample(seed: int, purpose: str, step: int, samples: list[int], random: object) -> None:
    order = list(range(len(samples)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = normal([3], seed, purpose, step, samples=[samples[i] for i in order])
    assert torch.equal(shuffled, normal([3], seed, purpose, step, samples=samples)[order])


@few
@given(SEEDS, PURPOSES, STEPS, SAMPLES, st.integers(0, 2**31))
def test_global_random_state_is_neither_read_nor_changed(
    seed: int, purpose: str, step: int, samples: list[int], state: int
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(state)
        first = normal([2], seed, purpose, step, samples=samples)
        after = torch.rand(3)
        torch.manual_seed(state)
        assert torch.equal(torch.rand(3), after)
        assert torch.equal(normal([2], seed, purpose, step, samples=samples), first)


@few
@given(st.tuples(SEEDS, PURPOSES, STEPS, st.integers(0, 10**6)), st.tuples(SEEDS, PURPOSES, STEPS, st.integers(0, 100)))
def test_other_keys_give_other_numbers(one: tuple[int, str, int, int], other: tuple[int, str, int, int]) -> None:
    mixed = [(*one[:i], other[i], *one[i + 1 :]) for i in range(4)]  # each key changed on its own
    draws = {
        (seed, purpose, step, sample): tuple(normal([4], seed, purpose, step, samples=[sample]).flatten().tolist())
        for seed, purpose, step, sample in {one, *mixed}
    }
    assert len(set(draws.values())) == len(draws)


@few
@given(st.lists(st.one_of(st.integers(-(2**63), 2**64), st.text(max_size=5)), min_size=1, max_size=4))
def test_a_stream_restarts_with_the_same_keys(keys: Sequence[int | str]) -> None:
    assert torch.equal(torch.rand(3, generator=stream(*keys)), torch.rand(3, generator=stream(*keys)))


def test_draws_of_fixed_keys_do_not_change() -> None:
    """Results of runs and docs/benchmark.md depend on them, so they must not change between versions."""
    draw = normal([3], 7, "latents", 5, samples=[11])
    assert torch.allclose(draw, torch.tensor([[0.8106841, -1.6694478, 0.2068595]]), atol=1e-6)


def test_no_samples() -> None:
    assert normal([2, 3], 0, "latents", samples=[]).shape == (0, 2, 3)
