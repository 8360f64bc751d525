from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from o3_lightning.detector.calibration import (
    check_recall,
    cross_fit,
    fit_narrowing,
    fit_scale_floor,
    folds_of,
    tail_weights,
)


def test_folds_score_every_row_once_and_never_fit_on_it():
    seen = []
    for fitted, scored in folds_of(23, 5, seed=3):
        assert not set(fitted.tolist()) & set(scored.tolist())
        seen += scored.tolist()
    assert sorted(seen) == list(range(23))


def test_cross_fit_puts_scores_back_in_order():
    result = cross_fit(11, 4, 0, lambda fitted, scored: scored.double())
    assert result.tolist() == list(range(11))


def test_weight_equals_the_square_of_the_clipped_normal_tail():
    scores = torch.linspace(-4, 3, 29)
    expected = np.minimum(1, norm.cdf(scores.double().numpy()) / 0.04) ** 2
    np.testing.assert_allclose(tail_weights(scores, 0.04).numpy(), expected, rtol=1e-6)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=20), st.floats(0.01, 0.5))
def test_weight_is_monotone_and_bounded(values, tail):
    weights = tail_weights(torch.tensor(sorted(values), dtype=torch.float64), tail)
    assert bool(((weights >= 0) & (weights <= 1)).all())
    assert bool((weights.diff() >= 0).all())


def test_weight_is_zero_far_away_and_one_close():
    assert tail_weights(torch.tensor([-1e9, 1e9]), 0.1).tolist() == [0.0, 1.0]


def test_scale_floor_grows_only_with_room():
    assert fit_scale_floor(torch.full((10,), -2.0), quantile=0.95, deviations=4.0) == 1.0
    assert fit_scale_floor(torch.full((10,), -40.0), quantile=0.95, deviations=4.0) == 10.0


def test_recall_check_on_normal_scores_meets_its_target():
    scores = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    check = check_recall(scores, 1.0, target=0.9, tail_quantile=0.04, folds=5, seed=0)
    expected = 1 - 0.04 * 0.5**0.5  # a weight of a half is the square of this share of the tail
    assert abs(check.measured - expected) < 0.02
    assert check.met


@pytest.mark.parametrize(("rows", "target", "rank"), [(19, 0.9, 2), (39, 0.9, 4), (24, 0.8, 5), (18, 0.9, 1)])
def test_the_conformal_weight_spares_the_whole_share_that_may_be_lost(rows, target, rank):
    # of 20 exchangeable prompts the new one is among the lowest two with a chance of a tenth, not less
    assert rank == int((1 - Fraction(str(target))) * (rows + 1))

    def conformal(lost):
        scores = torch.zeros(rows, dtype=torch.float64)
        scores[:lost] = -1
        options = {"tail_quantile": 0.05, "folds": rows, "seed": 0}
        return check_recall(scores, 0.01, target=target, **options).conformal

    assert conformal(rank - 1) == 1.0
    assert conformal(rank) == 0.0


def test_recall_check_fails_with_a_heavy_tail():
    scores = torch.cat([torch.zeros(80), torch.full((20,), -30.0)]) + 0.01 * torch.arange(100)
    check = check_recall(scores, 0.1, target=0.9, tail_quantile=0.04, folds=5, seed=0)
    assert check.measured < 0.9
    assert not check.met


def test_narrowing_lowers_scores_only_where_neighbours_are_taken_along():
    generator = torch.Generator().manual_seed(0)
    own = 0.3 + 0.3 * torch.randn(400, generator=generator)
    settings = {"tail_quantile": 0.08, "least_gain": 0.05}
    assert fit_narrowing(own, own - 6, **settings) == 0
    close = torch.randn(400, generator=generator) - 1.5
    shift = fit_narrowing(own, close, **settings)

    def weigh(scores):
        return tail_weights(scores, 0.08)

    def gain(by):
        return float(weigh(own - by).mean() - weigh(close - by).mean())

    assert shift > 0
    assert gain(shift) >= gain(0) + 0.05
    assert float((weigh(own - shift) >= 0.5).float().mean()) >= 0.75


def test_narrowing_never_costs_more_than_a_quarter_of_the_recall():
    own = torch.linspace(-3, 3, 101)
    shift = fit_narrowing(own, own, tail_quantile=0.08, least_gain=0.05)
    assert float((tail_weights(own - shift, 0.08) >= 0.5).float().mean()) >= 0.75
