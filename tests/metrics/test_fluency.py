"""Fluency metrics against scipy and by hand."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from o3_lightning.metrics.text import gibberish, repetition, token_entropy

tokens = st.lists(st.sampled_from("abcd"), min_size=2, max_size=12)


@given(tokens)
def test_token_entropy_is_that_of_the_frequencies_over_its_largest(answer):
    (value,) = token_entropy([answer])
    assert value == pytest.approx(entropy(list(Counter(answer).values()), base=2) / np.log2(len(answer)))
    assert 0 <= value <= 1 + 1e-12


def test_token_entropy_ends():
    assert token_entropy([[], [1], [5, 5, 5], [1, 2, 3]]) == pytest.approx([0, 0, 0, 1])


@given(tokens)
def test_repetition_counts_what_came_before(answer):
    grams = ["".join(answer[start : start + 4]) for start in range(len(answer) - 3)]
    again = sum(gram in grams[:place] for place, gram in enumerate(grams))
    assert repetition([answer]) == pytest.approx([again / len(grams) if grams else 0.0])


@pytest.mark.parametrize("rated", [[0.5], [0.5, 1.5], [0.5, float("nan")]])
def test_a_classifier_that_misbehaves_is_refused(rated):
    with pytest.raises(ValueError, match=r"2 values in \[0, 1\]"):
        gibberish(["a", "b"], lambda answers: rated)
