"""Memorization against a plain loop over all suffixes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from o3_lightning.metrics.likelihood import exact_memorization, extraction_strength
from o3_lightning.metrics.token_scores import TokenScores

hits = st.lists(st.booleans(), min_size=1, max_size=8)


def scores_of(flags):
    """The scores of an answer whose end token, which does not count, is added."""
    zeros = torch.zeros(len(flags) + 1)
    return TokenScores(zeros, zeros, zeros, torch.tensor([*flags, False]))


def longest_suffix(flags):
    return max(size for size in range(len(flags) + 1) if all(flags[len(flags) - size :]))


@given(hits)
def test_strength_is_the_share_of_the_longest_correct_suffix(flags):
    expected = longest_suffix(flags) / len(flags)
    (value,) = extraction_strength([scores_of(flags)], floor=False)
    assert value == pytest.approx(expected)
    (floored,) = extraction_strength([scores_of(flags)])
    assert floored == pytest.approx(max(expected, 1 / len(flags)))


@given(hits)
def test_an_answer_is_memorized_wholly_in_both_senses_or_in_neither(flags):
    (exact,) = exact_memorization([scores_of(flags)])
    (strength,) = extraction_strength([scores_of(flags)], floor=False)
    assert exact == pytest.approx(sum(flags) / len(flags))
    assert strength <= exact
    assert (strength == 1) == (exact == 1)


def test_an_only_token_counts():
    one = torch.zeros(1)
    assert exact_memorization([TokenScores(one, one, one, one == 0)]) == [1.0]
