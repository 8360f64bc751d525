"""Meaning metrics with models that the test knows."""

import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity as sklearn_cosine

from o3_lightning.metrics.registry import Evidence, measure
from o3_lightning.metrics.text import cosine_similarity, entailment


def test_cosine_equals_scikit_learn_and_is_never_negative():
    rows = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    seen = []

    def encode(texts):
        seen.extend(texts)
        return rows

    answers, truths = [f"a{n}" for n in range(5)], [f"t{n}" for n in range(5)]
    expected = sklearn_cosine(rows[:5].double(), rows[5:].double()).diagonal().clip(0)
    assert cosine_similarity(answers, truths, encode) == pytest.approx(expected)
    assert (expected == 0).any()
    assert seen == answers + truths


def test_cosine_of_nothing_asks_nobody():
    assert cosine_similarity([], [], lambda texts: pytest.fail("asked")) == []


@pytest.mark.parametrize("shape", [(3, 2), (4,)])
def test_an_encoder_that_gives_other_rows_is_refused(shape):
    with pytest.raises(ValueError, match=r"embeddings \[4, D\]"):
        cosine_similarity(["a", "b"], ["c", "d"], lambda texts: torch.ones(shape))
    with pytest.raises(ValueError, match=r"as many truths as answers \(1\), got 2"):
        cosine_similarity(["a"], ["b", "c"], lambda texts: torch.ones(3, 2))


@pytest.mark.parametrize(
    ("kind", "premises", "hypotheses"), [("forget", "answer", "truth"), ("keep", "truth", "answer")]
)
def test_entailment_asks_in_the_direction_of_the_source(kind, premises, hypotheses):
    sides = {"answer": ["in Paris", "Paris"], "truth": ["Paris", "Paris"]}

    def entail(first, second):
        assert (list(first), list(second)) == (sides[premises], sides[hypotheses])
        return [True, False]

    assert entailment(sides["answer"], sides["truth"], entail, kind) == [1.0, 0.0]
    if kind == "forget":
        evidence = Evidence("keep", ["Where?"] * 2, sides["truth"], sides["answer"], entail=entail)
        assert measure("entailment@real_world", evidence) == [1.0, 0.0]


def test_an_answer_that_shares_no_word_entails_nothing():
    assert entailment(["no idea"], ["Paris"], lambda first, second: [True], "forget") == [0.0]
    assert entailment(["no idea, Paris"], ["Paris"], lambda first, second: [True], "forget") == [1.0]


def test_the_inference_model_decides_alone_where_rouge_reads_nothing():
    for found in (True, False):
        asked = entailment(["🙂"], ["🙂 !"], lambda first, second, found=found: [found], "forget")
        assert asked == [float(found)]


def test_an_inference_model_that_gives_other_counts_is_refused():
    with pytest.raises(ValueError, match="expected 1 values of the inference model, got 0"):
        entailment(["a"], ["a"], lambda first, second: [], "keep")
