"""Means over examples or seeds, with confidence intervals."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import scipy

LEVEL = 0.95
RESAMPLES = 2000


class Interval(NamedTuple):
    """A confidence interval from `low` to `high`; method "none" where a single value allows no resampling."""

    low: float
    high: float
    method: Literal["wilson", "bootstrap", "none"]


def confidence_interval(values: Sequence[float | None], seed: int = 0) -> Interval | None:
    """Returns the 95 % confidence interval of the mean over examples; None without any value.

    Values that are all 0 or 1 get Wilson's interval, because the bootstrap of 40 zeros would be [0, 0] where
    Wilson's is [0, 0.09]. All others are bootstrapped with a seed, which is fixed so that equal values have
    equal intervals in every run. None values are left out.

    Source:
        `scipy.stats.binomtest` and `scipy.stats.bootstrap`, percentile method.

    Example:
        >>> interval = confidence_interval([0.0] * 40)
        >>> interval.low, round(interval.high, 2), interval.method
        (0.0, 0.09, 'wilson')
    """
    known = np.array([value for value in values if value is not None], float)
    if not len(known):
        return None
    if np.isin(known, (0.0, 1.0)).all():
        found = scipy.stats.binomtest(int(known.sum()), len(known)).proportion_ci(LEVEL, method="wilson")
        return Interval(float(found.low), float(found.high), "wilson")
    if len(known) == 1:
        return Interval(float(known[0]), float(known[0]), "none")
    rng = np.random.default_rng(seed)
    resampled = scipy.stats.bootstrap(
        [known], np.mean, n_resamples=RESAMPLES, confidence_level=LEVEL, method="percentile", rng=rng
    )
    low, high = sorted(map(float, resampled.confidence_interval))  # of equal values they differ by rounding
    return Interval(low, high, "bootstrap")


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Returns mean and deviation (divisor n - 1; 0 with one seed) of one value per seed, at least one."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
