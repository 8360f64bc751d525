"""Separation against closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from o3_lightning.metrics.detection import area_under_roc, average_precision, false_positive_rate, separation

scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12)


@given(scores, scores)
def test_auroc_is_the_share_of_ordered_pairs(inside, outside):
    pairs = [(a > b) + (a == b) / 2 for a in inside for b in outside]
    assert area_under_roc(inside, outside) == pytest.approx(np.mean(pairs))


@given(scores, scores)
def test_fpr_is_counted_at_the_highest_threshold_that_reaches_the_recall(inside, outside):
    thresholds = sorted(set(inside + outside), reverse=True)
    best = next(t for t in thresholds if np.mean([a >= t for a in inside]) >= 0.95)
    assert false_positive_rate(inside, outside) == pytest.approx(np.mean([b >= best for b in outside]))


def test_one_prompt_in_twenty_may_be_missed():
    inside = [float(number) for number in range(20)]
    assert false_positive_rate(inside, [0.5]) == 0.0  # the threshold 1 catches 19 of 20
    assert false_positive_rate(inside[1:], [0.5, 1.5]) == 0.5  # 18 of 19 are too few
    assert separation(inside, [0.5])["fpr95"] == 0.0


def test_the_sign_is_not_turned():
    assert area_under_roc([0.0], [1.0]) == 0.0
    assert average_precision([1.0], [0.0]) == 1.0


@pytest.mark.parametrize("measure", [area_under_roc, average_precision, false_positive_rate])
@pytest.mark.parametrize("sides", [([], [0.5]), ([0.5], [])])
def test_a_side_without_scores_is_refused(measure, sides):
    with pytest.raises(ValueError, match="at least one score a side, got"):
        measure(*sides)
