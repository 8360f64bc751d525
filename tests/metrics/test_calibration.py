"""Calibration and confusion against plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from o3_lightning.metrics.calibration import calibration_error, request_confusion, request_weights

weights = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12)


@given(weights, weights)
def test_calibration_error_is_the_weighted_gap_of_each_bin(inside, outside):
    pairs = [(weight, 1.0) for weight in inside] + [(weight, 0.0) for weight in outside]
    edges = np.linspace(0, 1, 11)
    groups = {}
    for weight, label in pairs:
        groups.setdefault(min(np.searchsorted(edges, weight, side="right") - 1, 9), []).append(
            (weight, label)
        )
    gaps = [abs(np.sum(np.diff(group, axis=1))) for group in groups.values()]
    assert calibration_error(inside, outside) == pytest.approx(sum(gaps) / len(pairs), abs=1e-5)


def test_weights_that_mean_what_they_say_have_no_error():
    assert calibration_error([0.75] * 3, [0.75]) == pytest.approx(0.0)
    assert calibration_error([0.0], [1.0]) == 1.0
    with pytest.raises(ValueError, match=r"all in \[0, 1\]"):
        calibration_error([1.5], [0.0])
    with pytest.raises(ValueError, match="at least one weight"):
        calibration_error([], [])


@given(st.lists(st.tuples(st.tuples(*[st.floats(0, 1)] * 3), st.sampled_from([0, 1, 2, None])), min_size=1))
def test_confusion_counts_every_prompt_once(rows):
    table, owners = zip(*rows, strict=True)
    counts = np.zeros((4, 4), int)
    for row, owner in rows:
        counts[3 if owner is None else owner, int(np.argmax(row)) if max(row) > 0.5 else 3] += 1
    assert request_confusion(table, owners) == counts.tolist()


def test_mean_weights_of_each_owner():
    means = request_weights([[1.0, 0.2], [0.0, 0.4], [0.5, 0.0]], [0, 0, None])
    assert means[0] == pytest.approx([0.5, 0.3])
    assert means[1:] == [[None, None], [0.5, 0.0]]


@pytest.mark.parametrize("function", [request_confusion, request_weights])
def test_shapes_and_owners_are_checked(function):
    with pytest.raises(ValueError, match=r"expected weights \[1, K\]"):
        function([0.5], [0])
    with pytest.raises(ValueError, match="owners from 0 to 1"):
        function([[0.5, 0.5]], [2])
