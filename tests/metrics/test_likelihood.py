"""Likelihood metrics against the formulas as the sources write them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from o3_lightning.metrics.likelihood import (
    TRUTH_RATIO_VERSIONS,
    normalised_probability,
    probability,
    truth_ratio,
    truth_ratio_quality,
)

losses = st.floats(0, 8)
examples = st.lists(st.tuples(losses, st.lists(losses, min_size=1, max_size=5)), min_size=1, max_size=6)
EPSILON = 1e-10


@given(examples)
def test_normalised_probability_is_the_share_of_the_true_answer(rows):
    right, wrong = zip(*rows, strict=True)
    plain = [np.exp(-loss) / (np.exp(-loss) + np.exp(-np.array(others)).sum()) for loss, others in rows]
    assert normalised_probability(right, wrong) == pytest.approx(plain)


def test_normalised_probability_survives_answers_of_no_likelihood():
    assert normalised_probability([1000.0, 0.0], [[1000.0], [2000.0]]) == [0.5, 1.0]


@given(examples)
def test_versions_of_the_truth_ratio(rows):
    right, wrong = zip(*rows, strict=True)
    mean_wrong = np.array([np.mean(others) for others in wrong])
    tofu = np.exp(-mean_wrong) / np.exp(-np.array(right))
    other = np.exp(-mean_wrong) / (np.exp(-np.array(right)) + EPSILON)
    assert truth_ratio(right, wrong) == pytest.approx(tofu)
    assert truth_ratio(right, wrong, "openunlearning") == pytest.approx(other)
    assert truth_ratio_quality(tofu, "forget") == pytest.approx(np.minimum(tofu, 1 / tofu))
    assert truth_ratio_quality(other, "forget", "openunlearning") == pytest.approx(
        np.minimum(other, 1 / (other + EPSILON))
    )
    assert truth_ratio_quality(tofu, "forget", "closer_look") == pytest.approx(1 - np.minimum(tofu, 1 / tofu))
    for version in TRUTH_RATIO_VERSIONS:
        assert truth_ratio_quality(tofu, "keep", version) == pytest.approx(np.maximum(0, 1 - tofu))


def test_extreme_ratios_stay_in_range():
    ratios = truth_ratio([2000.0, 0.0], [[0.0], [2000.0]])
    assert ratios == [np.inf, 0.0]
    assert truth_ratio_quality(ratios, "forget") == [0.0, 0.0]
    assert truth_ratio_quality(ratios, "keep") == [0.0, 1.0]


def test_tensors_are_taken_and_lists_returned():
    values = probability(torch.tensor([0.0, 1.0]))
    assert isinstance(values, list)
    assert values == pytest.approx([1.0, np.exp(-1)])
    assert truth_ratio(torch.tensor([1.0]), [torch.tensor([1.0, 1.0])]) == [1.0]


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="at least one perturbed answer"):
        truth_ratio([1.0], [[]])
    with pytest.raises(ValueError, match="zip"):
        truth_ratio([1.0, 2.0], [[1.0]])
    with pytest.raises(ValueError, match=r"expected a truth ratio version out of tofu"):
        truth_ratio([1.0], [[1.0]], "mine")
    with pytest.raises(ValueError, match="got 'mine'"):
        truth_ratio_quality([1.0], "keep", "mine")
