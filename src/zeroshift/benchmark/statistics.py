"""Paired comparison of two variants: the mean difference and its confidence interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zeroshift.errors import ZeroshiftError

__all__ = ["MIN_TARGETS", "Difference", "compare", "load_scipy_stats"]

MIN_TARGETS = 5  # intervals over fewer targets are inconclusive for targets in general
_RESAMPLES = 20_000


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences with its 95 % interval over targets and seeds."""

    mean: float
    low: float
    high: float
    targets: int

    @property
    def decided(self) -> bool:
        """Whether the interval excludes zero and covers enough targets."""
        return self.targets >= MIN_TARGETS and (self.low > 0 or self.high < 0)


def load_scipy_stats() -> Any:
    """The module scipy.stats, which intervals need. Benchmarks call this before their first trial.

    Raises:
        ZeroshiftError: if it is not installed.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise ZeroshiftError("A benchmark needs the package scipy: pip install 'zeroshift[benchmark]'.") from error
    return stats


def _tail(targets: int) -> float:
    """The fraction of resamples outside the interval at each end: 0.025 for many targets, 0.001 for five."""
    if targets < 2:
        return 0.0  # one target is not informative about others
    stats = load_scipy_stats()
    widened = math.sqrt(targets / (targets - 1)) * stats.t.ppf(0.975, targets - 1)
    return float(stats.norm.cdf(-widened))


def compare(differences: Sequence[Sequence[float]], seed: int = 0) -> Difference:
    """The mean over targets of the mean over seeds, with an expanded percentile bootstrap interval.

    Targets are resampled, and the seeds within each: targets differ more than seeds do, and a result should hold for
    the next target, not only for the next seed. Plain percentiles (Efron, 1979) are too narrow for few targets: with
    five, 83 % of the intervals contain the truth. They are widened by the ratio of the t-interval to the normal
    interval with the variance of the sample (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015,
    section 3.3).

    Args:
        differences: for each target, the differences at the seeds that both variants share.
    """
    random = np.random.default_rng(seed)
    by_target = [np.asarray(values, dtype=float) for values in differences]
    chosen = random.integers(len(by_target), size=(_RESAMPLES, len(by_target)))
    means = np.empty(chosen.shape)
    for index, values in enumerate(by_target):
        selected = chosen == index
        means[selected] = random.choice(values, size=(int(selected.sum()), len(values))).mean(axis=1)
    tail = _tail(len(by_target))
    low, high = np.quantile(means.mean(axis=1), [tail, 1 - tail])
    return Difference(float(np.mean([values.mean() for values in by_target])), float(low), float(high), len(by_target))
