"""Membership values against closed forms."""

import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from o3_lightning.metrics.membership import (
    gradient_norm,
    membership_auc,
    min_k,
    min_k_plus_plus,
    privacy_leak,
    reference_difference,
    zlib_ratio,
)
from o3_lightning.metrics.token_scores import TokenScores

log_probs = st.lists(st.floats(-9, 0), min_size=1, max_size=9)


def scores_of(values, mean=-1.0, deviation=2.0):
    flat = torch.ones(len(values))
    return TokenScores(torch.tensor(values, dtype=torch.float32), mean * flat, deviation * flat, flat > 0)


@given(log_probs, st.floats(0.01, 1))
def test_min_k_is_the_mean_loss_of_the_worst_tokens(values, share):
    worst = sorted(values)[: max(1, int(len(values) * share))]
    expected = -np.mean(np.float32(worst).astype(float))
    assert min_k([scores_of([*values, -99.0])], share) == pytest.approx([expected])


@given(log_probs)
def test_min_k_plus_plus_of_one_position_shape_is_min_k_standardised(values):
    (plain,) = min_k([scores_of(values)])
    (standard,) = min_k_plus_plus([scores_of(values)])
    assert standard == pytest.approx((plain - 1.0) / 2.0, abs=1e-5)


def test_min_k_plus_plus_of_a_certain_position_stays_finite():
    (value,) = min_k_plus_plus([scores_of([-1.0], mean=0.0, deviation=0.0)])
    assert value == pytest.approx(1000.0)


def test_zlib_divides_by_the_compressed_length_in_bytes():
    text = "Ünïcode " * 20
    assert zlib_ratio([3.0], [text]) == [3.0 / len(zlib.compress(text.encode("utf-8")))]
    repeated, varied = zlib_ratio(
        [2.0, 2.0], ["ab" * 30, "The quick brown fox jumps over the lazy dog, twice a day!"]
    )
    assert repeated > varied


def test_auc_is_one_where_the_forget_set_still_looks_like_training_data():
    assert membership_auc([0.1, 0.2], [3.0, 4.0]) == 1.0
    assert membership_auc([3.0, 4.0], [0.1, 0.2]) == 0.0
    assert membership_auc(torch.tensor([1.0]), np.array([1.0])) == 0.5


@given(st.floats(0, 1), st.floats(0, 0.99))
def test_privacy_leak_is_zero_only_at_the_reference(auc, reference):
    leak = privacy_leak(auc, reference)
    assert leak == pytest.approx((reference - auc) / (1 - reference + 1e-10) * 100)
    assert privacy_leak(reference, reference) == 0.0


def test_differences():
    assert reference_difference([2.0, 1.0], torch.tensor([0.5, 1.5])) == [1.5, -0.5]


def test_gradient_norm_of_a_linear_loss_is_that_of_its_weights():
    weight, unused = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    bias = torch.ones(1, requires_grad=True)
    factors = torch.tensor([1.0, -2.0, 2.0])
    value = gradient_norm((weight * factors).sum() + 5 * bias.sum(), [weight, bias, unused])
    expected = (np.linalg.norm(factors.numpy()) + 5.0) / 2
    assert value == pytest.approx(expected)
    assert weight.grad is None


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"share in \(0, 1\]"):
        min_k([scores_of([-1.0])], 0.0)
    used, unused = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    with pytest.raises(ValueError, match="at least one parameter"):
        gradient_norm(used.sum(), [unused])
    with pytest.raises(ValueError, match="zip"):
        zlib_ratio([1.0], ["a", "b"])
    with pytest.raises(ValueError, match="zip"):
        reference_difference([1.0], [1.0, 2.0])
