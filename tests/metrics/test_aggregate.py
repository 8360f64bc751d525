"""Intervals against scipy's closed forms and their own coverage."""

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from o3_lightning.common.plain import mean_of
from o3_lightning.metrics.aggregate import confidence_interval, over_seeds

unit = st.floats(0, 1)


def wilson(successes, count, z=1.959963984540054):
    share = successes / count
    middle = share + z * z / (2 * count)
    half = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count)


@given(st.integers(0, 20), st.integers(1, 20))
def test_shares_get_the_interval_of_wilson(successes, failures):
    values = [1.0] * successes + [0.0] * failures
    interval = confidence_interval(values, seed=0)
    assert interval.method == "wilson"
    assert (interval.low, interval.high) == pytest.approx(wilson(successes, len(values)), abs=1e-9)


@given(st.lists(unit, min_size=2, max_size=10), st.integers(0, 3))
def test_an_interval_holds_its_mean_and_stays_in_range(values, seed):
    interval = confidence_interval(values, seed)
    assert min(values) - 1e-12 <= interval.low <= interval.high <= max(values) + 1e-12 or (
        interval.method == "wilson"
    )
    assert confidence_interval(values, seed) == interval


def test_the_bootstrap_covers_as_often_as_it_says():
    draw = np.random.default_rng(0)
    intervals = [confidence_interval(draw.normal(size=60).tolist(), seed) for seed in range(200)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert 0.88 < covered < 0.997  # 0.95 +- three standard errors; the percentile method is a little short


def test_another_seed_resamples_otherwise_and_seed_zero_is_one_too():
    values = np.random.default_rng(0).random(30).tolist()
    assert confidence_interval(values, 0) != confidence_interval(values, 1)


def test_missing_values_and_single_ones():
    assert confidence_interval([None], 0) is None
    assert confidence_interval([], 0) is None
    assert confidence_interval([None, 0.3], 0).method == "none"
    assert confidence_interval([0.3, 0.3], 0).low == pytest.approx(0.3)
    assert mean_of([]) is None


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6))
def test_seeds_have_a_sample_deviation(values):
    expected = statistics.fmean(values), statistics.stdev(values)
    assert over_seeds(values) == pytest.approx(expected, abs=1e-9)


def test_one_seed_has_no_deviation():
    assert over_seeds([2.0]) == (2.0, 0.0)
