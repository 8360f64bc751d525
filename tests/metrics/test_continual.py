"""Metrics over a sequence of requests against closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from o3_lightning.metrics.quality import backward_transfer, unlearning_to_utility_ratio

unit = st.floats(0, 1)


@given(
    st.integers(2, 5).flatmap(
        lambda k: st.lists(st.lists(unit, min_size=k + 1, max_size=k + 1), min_size=k, max_size=k)
    )
)
def test_backward_transfer_compares_the_end_with_the_own_unlearning(values):
    matrix = np.array(values)
    requests = len(matrix)
    expected = np.mean([matrix[i, requests] - matrix[i, i + 1] for i in range(requests - 1)])
    assert backward_transfer(values) == pytest.approx(expected)


def test_one_request_has_no_backward_transfer():
    assert backward_transfer([[1.0, 0.0]]) is None
    assert backward_transfer([]) is None


@pytest.mark.parametrize(
    ("forget", "utility", "expected"),
    [
        ([(1.0, 0.0), (0.8, 0.4)], [(0.9, 0.7), (0.5, 0.5)], 0.7 / 0.1),
        ([(1.0, 0.0)], [(0.5, 0.6)], 100.0),  # a utility that rose counts as the smallest drop
        ([(0.2, 0.4)], [(0.9, 0.7)], -1.0),  # nothing forgotten, on the contrary
        ([], [(1.0, 1.0)], None),
        ([(1.0, 0.0)], [], None),
    ],
)
def test_ratio_of_the_mean_drops(forget, utility, expected):
    found = unlearning_to_utility_ratio(forget, utility)
    assert found == (None if expected is None else pytest.approx(expected))
