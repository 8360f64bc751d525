"""Means over examples or seeds, with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, bootstrap

LEVEL = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A confidence interval from `low` to `high`; method "none" where a single value allows no resampling."""

    low: float
    high: float
    method: Literal["wilson", "bootstrap", "none"]


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (divisor n - 1; None with one seed) over `seeds` seeds."""

    mean: float
    deviation: float | None
    seeds: int


def confidence_interval(
    values: Sequence[float | None], seed: int, level: float = LEVEL, resamples: int = RESAMPLES
) -> Interval | None:
    """Returns the confidence interval of the mean over examples; None without any value.

    Values that are all 0 or 1 get Wilson's interval, because the bootstrap of 40 zeros would be [0, 0] where
    Wilson's is [0, 0.09]. All others are bootstrapped.

    Args:
        values: one per example; None values are left out.
        seed: of the resampling.
        level: in (0, 1).
        resamples: of the bootstrap.

    Raises:
        ValueError: `level` outside (0, 1).

    Source:
        `scipy.stats.binomtest` and `scipy.stats.bootstrap`, percentile method.

    Example:
        >>> interval = confidence_interval([0.0] * 40, seed=0)
        >>> interval.low, round(interval.high, 2), interval.method
        (0.0, 0.09, 'wilson')
    """
    if not 0 < level < 1:
        raise ValueError(f"expected a level in (0, 1), got {level}")
    known = np.array([value for value in values if value is not None], float)
    if not len(known):
        return None
    if np.isin(known, (0.0, 1.0)).all():
        found = binomtest(int(known.sum()), len(known)).proportion_ci(level, method="wilson")
        return Interval(float(found.low), float(found.high), "wilson")
    return bootstrap_interval([known], np.mean, seed, level, resamples)


def bootstrap_interval(
    samples: Sequence[ArrayLike],
    statistic: Callable[..., float],
    seed: int,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Interval:
    """Returns the percentile bootstrap interval of a statistic of independent, non-empty samples.

    The statistic maps the samples, one array argument each, to a number. If each sample has one number, the
    interval is the statistic itself.
    """
    arrays = [np.asarray(sample, float) for sample in samples]
    if all(len(array) == 1 for array in arrays):
        value = float(statistic(*arrays))
        return Interval(value, value, "none")
    result = bootstrap(
        arrays,
        statistic,
        n_resamples=resamples,
        confidence_level=level,
        method="percentile",
        vectorized=statistic is np.mean,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(result.low), float(result.high), "bootstrap")


def over_seeds(values: Sequence[float]) -> Spread:
    """Returns mean and deviation of one value per seed.

    Raises:
        ValueError: no value.
    """
    if not len(values):
        raise ValueError("expected at least one seed")
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), deviation, len(values))
