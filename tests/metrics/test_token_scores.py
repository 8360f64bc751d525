"""Token scores against closed forms and a distribution of torch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from o3_lightning.metrics.token_scores import TokenScores, score_tokens


def random_logits(rows, width, seed=0):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def test_fields_equal_those_of_a_categorical_distribution():
    logits, targets = random_logits(7, 11), torch.arange(7)
    (scores,) = score_tokens(logits, targets, [7])
    exact = torch.distributions.Categorical(logits=logits.double())
    assert torch.allclose(scores.log_probs.double(), exact.log_prob(targets), atol=1e-6)
    assert torch.allclose(-scores.vocabulary_mean.double(), exact.entropy(), atol=1e-6)
    assert torch.equal(scores.is_argmax, logits.argmax(-1) == targets)
    second = (exact.probs * exact.logits.square()).sum(-1)
    deviation = (second - exact.entropy().square()).sqrt()
    assert torch.allclose(scores.vocabulary_deviation.double(), deviation, atol=1e-5)
    assert scores.loss == pytest.approx(float(-exact.log_prob(targets).mean()), abs=1e-6)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 9))
def test_chunks_and_neighbours_change_nothing(lengths, chunk):
    count = sum(lengths)
    logits, targets = random_logits(count, 5), torch.arange(count) % 5
    together = score_tokens(logits, targets, lengths, chunk_tokens=chunk)
    start = 0
    for length, scores in zip(lengths, together, strict=True):
        (alone,) = score_tokens(logits[start : start + length], targets[start : start + length], [length])
        for name in ("log_probs", "vocabulary_mean", "vocabulary_deviation", "is_argmax"):
            assert torch.equal(getattr(scores, name), getattr(alone, name))
        start += length


def test_a_banned_token_makes_no_value_undefined():
    logits = torch.tensor([[0.0, 0.0, -torch.inf]])
    (scores,) = score_tokens(logits, torch.tensor([0]), [1])
    assert -scores.vocabulary_mean.item() == pytest.approx(torch.log(torch.tensor(2.0)).item())
    assert scores.vocabulary_deviation.item() == 0.0


def test_half_precision_logits_are_scored_in_float32():
    logits = random_logits(3, 9).bfloat16()
    (scores,) = score_tokens(logits, torch.arange(3), [3])
    assert scores.log_probs.dtype == torch.float32
    (exact,) = score_tokens(logits.float(), torch.arange(3), [3])
    assert torch.equal(scores.log_probs, exact.log_probs)


def test_the_last_token_is_left_out_unless_it_is_the_only_one():
    scores = score_tokens(random_logits(4, 5), torch.zeros(4, dtype=torch.int64), [3, 1])
    assert [len(part.without_last()) for part in scores] == [2, 1]


@pytest.mark.parametrize("lengths", [[], [2], [3, 0], [4]])
def test_lengths_that_do_not_fit_are_refused(lengths):
    with pytest.raises(ValueError, match="lengths >= 1 that sum up to 3"):
        score_tokens(random_logits(3, 5), torch.zeros(3, dtype=torch.int64), lengths)


def test_fields_of_different_lengths_and_empty_answers_are_refused():
    three, two, none = torch.zeros(3), torch.zeros(2), torch.zeros(0)
    with pytest.raises(ValueError, match="four fields of one shape"):
        TokenScores(three, three, two, three > 0)
    with pytest.raises(ValueError, match="T >= 1"):
        TokenScores(none, none, none, none > 0)
