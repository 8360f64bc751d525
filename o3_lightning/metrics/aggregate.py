"""From values per example to one number, with the interval that a sceptic asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, bootstrap

__all__ = ["Interval", "Spread", "bootstrap_interval", "confidence_interval", "over_seeds"]

LEVEL = 0.95
RESAMPLES = 2000

Statistic = Callable[..., float]


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Args:
        low: lower end.
        high: upper end.
        method: how it was found: "wilson" or "bootstrap"; "none" where one value leaves nothing to resample.
    """

    low: float
    high: float
    method: Literal["wilson", "bootstrap", "none"]


@dataclass(frozen=True)
class Spread:
    """What several seeds gave.

    Args:
        mean: over the seeds.
        deviation: sample standard deviation (divisor n - 1), or None with one seed.
        seeds: how many there were.
    """

    mean: float
    deviation: float | None
    seeds: int


def confidence_interval(
    values: Sequence[float | None], seed: int, level: float = LEVEL, resamples: int = RESAMPLES
) -> Interval | None:
    """Returns the confidence interval of the mean over the examples.

    Values that are all 0 or 1 get Wilson's interval: of 40 answers that all leak nothing, resampling would
    claim [0, 0], and Wilson's says [0, 0.09]. All others are resampled.

    Args:
        values: one per example; those that are None are left out.
        seed: of the resampling.
        level: in (0, 1).
        resamples: of the bootstrap.

    Returns:
        The interval, or None where no value is there.

    Raises:
        ValueError: a level outside (0, 1).

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
    statistic: Statistic,
    seed: int,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Interval:
    """Returns the percentile bootstrap interval of any statistic of one or several independent samples.

    Args:
        samples: each a list of numbers, resampled by itself; at least one number each.
        statistic: takes the samples as arrays, one argument each, and returns a number.
        seed: of the resampling.
        level: in (0, 1).
        resamples: how many.

    Returns:
        The interval; with a single number in every sample it is that statistic itself, method "none".

    Example:
        >>> from o3_lightning.metrics.separation import area_under_roc
        >>> interval = bootstrap_interval([[1.0, 3.0, 4.0], [0.0, 2.0]], area_under_roc, seed=0, resamples=50)
        >>> 0 <= interval.low <= interval.high <= 1
        True
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
    """Returns mean and deviation over seeds.

    Args:
        values: one per seed, at least one.

    Raises:
        ValueError: no value.

    Example:
        >>> over_seeds([1.0, 3.0])
        Spread(mean=2.0, deviation=1.4142135623730951, seeds=2)
    """
    if not len(values):
        raise ValueError("expected at least one seed")
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), deviation, len(values))
