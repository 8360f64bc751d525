"""Calibration and confusion against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_calibration_error

from o3_lightning.metrics.detection import calibration_error, request_confusion

weights = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12)


@given(inside=weights, outside=weights)
def test_calibration_error_is_the_gap_of_each_bin(inside, outside):
    masses = 0.5 / len(inside), 0.5 / len(outside)
    gaps = dict.fromkeys(range(10), 0.0)
    for side, label, mass in ((inside, 1, masses[0]), (outside, 0, masses[1])):
        for weight in side:
            gaps[min(int(weight * 10), 9)] += mass * (weight - label)
    expected = sum(abs(gap) for gap in gaps.values())
    assert calibration_error(inside, outside) == pytest.approx(expected, abs=1e-9)


def test_calibration_error_equals_that_of_torchmetrics():
    draw = np.random.default_rng(0)
    for size in (1, 90, 250):
        inside, outside = draw.beta(4, 2, size), draw.beta(1, 3, size)
        preds, labels = torch.tensor(np.concatenate([inside, outside])), torch.tensor([1, 0])
        theirs = binary_calibration_error(preds, labels.repeat_interleave(size), n_bins=10, norm="l1")
        assert calibration_error(inside, outside) == pytest.approx(float(theirs), abs=1e-6)


def test_more_prompts_of_one_side_change_nothing_where_sides_count_alike():
    inside, outside = [0.9, 0.4], [0.1, 0.6, 0.3]
    assert calibration_error(inside, outside * 5) == pytest.approx(calibration_error(inside, outside))


def test_weights_that_mean_what_they_say_have_no_error():
    assert calibration_error([0.5] * 3, [0.5]) == pytest.approx(0.0)
    assert calibration_error([0.0], [1.0]) == 1.0
    with pytest.raises(ValueError, match=r"all in \[0, 1\]"):
        calibration_error([1.5], [0.0])
    with pytest.raises(ValueError, match="at least one weight a side"):
        calibration_error([1.0], [])


@given(st.lists(st.tuples(st.tuples(*[st.floats(0, 1)] * 3), st.sampled_from([0, 1, 2, None])), min_size=1))
def test_confusion_counts_every_prompt_once(rows):
    table, owners = zip(*rows, strict=True)
    counts = np.zeros((4, 4), int)
    for row, owner in rows:
        counts[3 if owner is None else owner, int(np.argmax(row)) if max(row) >= 0.5 else 3] += 1
    assert request_confusion(table, owners) == counts.tolist()


def test_shapes_and_owners_are_checked():
    with pytest.raises(ValueError, match=r"expected weights \[1, K\]"):
        request_confusion([0.5], [0])
    with pytest.raises(ValueError, match="owners from 0 to 1"):
        request_confusion([[0.5, 0.5]], [2])
