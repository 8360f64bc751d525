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


@pytest.mark.parametrize(
    ("answer", "truth", "known"),
    [
        ("彼女は東京で生まれた。", "東京", 1.0),
        ("彼女は京都で生まれた。", "東京", 0.0),
        ("她出生在北京。", "北京", 1.0),
        ("그녀는 서울에서 태어났다.", "서울", 1.0),
        ("เขาเกิดที่กรุงเทพ", "กรุงเทพ", 1.0),
        ("Она родилась в Москве.", "Москве", 1.0),
        ("Она родилась в Москве.", "Москва", 0.0),  # other forms of a word are other words, as in English
        ("वह दिल्ली में पैदा हुई थी।", "दिल्ली", 1.0),
        ("¿En São Paulo?", "são paulo", 1.0),
        ("Moscows", "Moscow", 0.0),
    ],
)
def test_accuracy_reads_every_script(answer, truth, known):
    assert accuracy([answer], [truth]) == [known]


def test_rouge_reads_every_script_and_has_no_value_for_truths_without_words():
    truths = ["Москва", "東京", "São Paulo", "1984年", "ประเทศไทย", "القاهرة", "दिल्ली", "..."]
    assert rouge(truths, truths) == [1.0] * 7 + [None]
    assert rouge(["Moscow"] * 7, truths[:7], "rouge1", "fmeasure") == [0.0] * 7
    assert rouge(["答えは東京です。", "In Москва, 1984"], ["東京", "Москва in 1984"]) == [
        1.0,
        pytest.approx(2 / 3),
    ]
    assert rouge(["東の京"], ["東京都"], "rougeL", "recall") == pytest.approx([2 / 3])


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("The poets' books weren't re-printed 3 times", "Her poet's book was reprinted three times"),
        ("In Sao Paulo", "São Paulo"),
        ("Die Städte lagen in Polen", "Cities: Sta\u0308dte"),
        ("It was Gabriel García Márquez’s — “Cien años”", "Gabriel Garcia Marquez’s “Cien años”"),
    ],
)
def test_rouge_of_texts_in_latin_script_is_that_of_rouge_score(answer, truth):
    from rouge_score.rouge_scorer import RougeScorer

    expected = RougeScorer(["rougeL"], use_stemmer=True).score(truth, answer)["rougeL"].recall
    assert rouge([answer], [truth]) == [expected]


@pytest.mark.parametrize("function", [accuracy, rouge_l_recall])
def test_lists_of_different_length_are_refused(function):
    with pytest.raises(ValueError, match="zip"):
        function(["a"], ["a", "b"])
