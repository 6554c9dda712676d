"""Paired comparison of two rows of the benchmark: a mean difference and the interval that it carries."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

__all__ = ["LEAST_TARGETS", "Difference", "compare"]

LEAST_TARGETS = 5  # fewer say nothing about targets in general, whatever their interval
_RESAMPLES = 20_000


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences and its 95 % interval over targets and seeds."""

    mean: float
    low: float
    high: float
    targets: int

    @property
    def decided(self) -> bool:
        """Whether the interval carries the sign of the mean."""
        return self.targets >= LEAST_TARGETS and (self.low > 0 or self.high < 0)


def _tail(targets: int) -> float:
    """The share of resamples outside of the interval at each end: 0.025 for many targets, 0.001 for five."""
    if targets < 2:
        return 0.0  # one target tells nothing of others
    widened = math.sqrt(targets / (targets - 1)) * stats.t.ppf(0.975, targets - 1)
    return float(stats.norm.cdf(-widened))


def compare(differences: Sequence[Sequence[float]], seed: int = 0) -> Difference:
    """The mean over targets of the mean over seeds, with an expanded percentile bootstrap interval.

    Targets are drawn anew, and for each its seeds: targets differ more than seeds do, and a result should hold for the
    next target, not for the next seed alone. Plain percentiles (Efron, 1979) are too narrow for few targets (of five,
    83 % of intervals hold the truth); wider ones stand in for them, by as much as the t-interval is wider than the one
    of the normal distribution with the variance of the sample (Hesterberg, "What Teachers Should Know About the
    Bootstrap", 2015, section 3.3).

    Args:
        differences: one sequence a target, of what one row has more than the other at each seed that both have.
    """
    random = np.random.default_rng(seed)
    rows = [np.asarray(row, dtype=float) for row in differences]
    chosen = random.integers(len(rows), size=(_RESAMPLES, len(rows)))
    means = np.empty(chosen.shape)
    for index, row in enumerate(rows):
        here = chosen == index
        means[here] = random.choice(row, size=(int(here.sum()), len(row))).mean(axis=1)
    low, high = np.quantile(means.mean(axis=1), [tail := _tail(len(rows)), 1 - tail])
    return Difference(float(np.mean([row.mean() for row in rows])), float(low), float(high), len(rows))
