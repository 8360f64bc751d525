"""Token scores: the same in batches and one by one, and never the whole batch's vocabulary at once."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from o3_lightning.common.errors import InputError
from o3_lightning.data.fictitious import build_world, rows_of
from o3_lightning.evaluation.passes import BatchRunner, score_pairs
from o3_lightning.evaluation.reference import plain_model
from o3_lightning.gating import answer_logits as answer_logits_file


@pytest.fixture(scope="module")
def rows():
    return rows_of(build_world(0), build_world(0).authors[:2])


def score(base, rows, size):
    model = plain_model(base)
    prompts, answers = [row.prompt for row in rows], [row.answer for row in rows]
    return score_pairs(model, prompts, answers, model.weights(prompts), BatchRunner(size))


def test_batches_give_what_one_by_one_gives(tiny_base, rows):
    for batched, single in zip(score(tiny_base, rows, 7), score(tiny_base, rows, 1), strict=True):
        torch.testing.assert_close(batched.log_probs, single.log_probs, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(batched.vocabulary_mean, single.vocabulary_mean, rtol=1e-6, atol=1e-6)
        assert torch.equal(batched.is_argmax, single.is_argmax)


def test_a_model_that_gives_no_numbers_is_refused_before_it_passes_for_unlearned(tiny_base, rows):
    broken = replace(tiny_base, model=copy.deepcopy(tiny_base.model))
    broken.model.get_output_embeddings().weight.data[5] = math.inf
    with pytest.raises(InputError, match=r"'tiny.*' returns NaN"):
        score(broken, rows, 7)


def test_a_single_row_is_what_the_model_itself_says(tiny_base, rows):
    text = tiny_base.template.format(rows[0].prompt)
    start = tiny_base.tokenizer(text)["input_ids"]
    whole = tiny_base.tokenizer(f"{text} {rows[0].answer}")["input_ids"] + [tiny_base.tokenizer.eos_token_id]
    likely = tiny_base.model(torch.tensor([whole])).logits[0].log_softmax(-1)
    expected = [float(likely[place - 1, whole[place]]) for place in range(len(start), len(whole))]
    ours = score(tiny_base, rows[:1], 1)[0]
    assert ours.log_probs.tolist() == pytest.approx(expected, abs=1e-5)
    entropy = -(likely.exp() * likely).sum(-1)[len(start) - 1 : -1]
    assert (-ours.vocabulary_mean).tolist() == pytest.approx(entropy.tolist(), abs=1e-4)


def test_the_head_sees_a_part_of_the_answers_at_a_time(tiny_base, rows, monkeypatch):
    seen = []
    hook = tiny_base.model.get_output_embeddings().register_forward_hook(
        lambda module, inputs, output: seen.append(math.prod(output.shape[:-1]))
    )
    monkeypatch.setattr(answer_logits_file.answer_logits.__wrapped__, "__defaults__", (10,))
    score(tiny_base, rows, len(rows))
    hook.remove()
    assert len(seen) > 5
    assert max(seen) <= 10
