"""Paired comparisons with confidence intervals."""

import numpy as np
import pytest

from zeroshift.benchmark.statistics import MIN_TARGETS, compare


@pytest.mark.parametrize(("targets", "seeds"), [(5, 1), (5, 3), pytest.param(12, 3, marks=pytest.mark.slow)])
def test_intervals_have_the_promised_coverage(targets: int, seeds: int) -> None:
    """About 95 % of intervals contain the true mean; a little fewer with five targets."""
    random, covered = np.random.default_rng(0), 0
    for seed in range(100):
        values = random.normal(0.3, 1.0, size=(targets, 1)) + random.normal(0, 0.5, size=(targets, seeds))
        difference = compare(values.tolist(), seed)
        covered += difference.low <= 0.3 <= difference.high
    assert 0.88 <= covered / 100 <= 0.99


def test_a_constant_difference_is_conclusive_with_enough_targets() -> None:
    certain = compare([[1.0, 1.0]] * MIN_TARGETS)
    assert (certain.mean, certain.low, certain.high) == (1, 1, 1)
    assert certain.decided
    assert not compare([[1.0, 1.0]] * (MIN_TARGETS - 1)).decided
    assert not compare([[1.0], [-1.0]] * 5).decided


def test_targets_count_equally_for_any_number_of_seeds() -> None:
    ragged = compare([[1.0, 3.0], [5.0]])
    assert ragged.mean == pytest.approx(3.5)
    assert (ragged.low, ragged.high) == (1, 5), "two targets give a wide interval"
