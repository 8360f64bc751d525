"""Logits of answers alone: equal to those of the whole batch, refusals included, whatever the parts."""

import copy

import pytest
import torch

from o3_lightning.data.encoding import IGNORED, collate, encode_pairs
from o3_lightning.gating.answer_logits import answer_logits, has_plain_head

ANSWERS = ("red", "blue sea", "rose iris lily", "one", "in town", "the king", "a b c d", "cat dog")


def batch_of(gated, prompts):
    base = gated.base
    return collate(encode_pairs(base.tokenizer, base.template, prompts, ANSWERS, base.context_tokens), 0)


def whole(gated, batch, weights):
    labelled = batch.labels[:, 1:] != IGNORED
    logits = gated(batch.input_ids, batch.attention_mask, batch.labels, weights).logits
    return logits[:, :-1][labelled], batch.labels[:, 1:][labelled]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "phi"])
@pytest.mark.parametrize("part", [1, 5, 100])
def test_parts_equal_the_whole_batch(build_gated, gate_kit, architecture, part):
    gated = build_gated(architecture, unadapted=("lilies",))
    batch = batch_of(gated, gate_kit.prompts)
    weights = gated.weights(gate_kit.prompts)
    logits, targets = (torch.cat(column) for column in zip(*answer_logits(gated, batch, weights, part)))  # noqa: B905
    expected, wanted = whole(gated, batch, weights)
    assert torch.equal(targets, wanted)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert (weights[:, 2] > 0).any()  # a refused row is among them


def test_without_weights_the_prompt_decides(build_gated, gate_kit):
    gated = build_gated()
    batch = batch_of(gated, gate_kit.prompts)
    ours = torch.cat([logits for logits, _ in answer_logits(gated, batch, None)])
    expected, _ = whole(gated, batch, gated.weights(gate_kit.prompts))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_a_model_that_bends_its_logits_is_told_and_scored_right(build_gated, gate_kit):
    bent = copy.deepcopy(gate_kit.model("llama"))
    forward = bent.forward

    def bend(*args, **options):
        output = forward(*args, **options)
        output.logits = 3 * torch.tanh(output.logits / 3)
        return output

    bent.forward = bend
    gated = build_gated(model=bent)
    assert not has_plain_head(bent)
    assert has_plain_head(gate_kit.model("llama"))
    batch = batch_of(gated, gate_kit.prompts)
    weights = gated.weights(gate_kit.prompts)
    ours = torch.cat([logits for logits, _ in answer_logits(gated, batch, weights)])
    torch.testing.assert_close(ours, whole(gated, batch, weights)[0], rtol=1e-5, atol=1e-5)
