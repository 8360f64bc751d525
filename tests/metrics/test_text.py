"""ROUGE against counting words by hand, and when an answer says the truth."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from o3_lightning.metrics.text import accuracy, rouge, rouge_l_recall

WORDS = ["zebra", "oslo", "quartz", "violin"]  # words that the stemmer leaves alone
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=7)


def common_in_order(left, right):
    lengths = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, first in enumerate(left):
        for j, second in enumerate(right):
            same = lengths[i][j] + 1
            lengths[i + 1][j + 1] = same if first == second else max(lengths[i][j + 1], lengths[i + 1][j])
    return lengths[-1][-1]


@given(texts, texts)
def test_recall_and_f1_count_shared_words(answer, truth):
    given_texts = [" ".join(answer)], [" ".join(truth)]
    shared = {
        "rouge1": sum((Counter(answer) & Counter(truth)).values()),
        "rougeL": common_in_order(answer, truth),
    }
    for kind, count in shared.items():
        assert rouge(*given_texts, kind, "recall") == pytest.approx([count / len(truth)])
        assert rouge(*given_texts, kind, "precision") == pytest.approx([count / len(answer)])
        f1 = 2 * count / (len(answer) + len(truth))
        assert rouge(*given_texts, kind, "fmeasure") == pytest.approx([f1])


def test_the_stemmer_is_on_and_an_empty_answer_recalls_nothing():
    assert rouge_l_recall(["books written", ""], ["book written", "book"]) == [1.0, 0.0]


def test_accuracy_asks_for_whole_words_in_order():
    answers = ["She lives in New York City.", "York, New", "Newyork", "", "new-york"]
    assert accuracy(answers, ["New York"] * 5) == [1.0, 0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("function", [accuracy, rouge_l_recall])
def test_lists_of_different_length_are_refused(function):
    with pytest.raises(ValueError, match="zip"):
        function(["a"], ["a", "b"])
