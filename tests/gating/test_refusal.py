"""A protected request is refused whatever is sampled or searched, and its scores tell nothing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TextIteratorStreamer

from o3_lightning.gating.refusal import refuse_logits

REFUSAL = "sorry I cannot say that"
PROMPTS = ["who is the king", "a lily", "where is the rose", "the lily was born in the hill"]


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": False},
        {"do_sample": True, "temperature": 2.0, "top_k": 5, "num_return_sequences": 3},
        {"do_sample": False, "num_beams": 4, "num_return_sequences": 3},
        {"do_sample": False, "min_new_tokens": 8},
    ],
    ids=["greedy", "sampled", "beams", "forced_length"],
)
def test_matching_rows_say_the_refusal_and_nothing_else(build_gated, options):
    gated = build_gated(unadapted=["lilies"])
    output = gated.generate(PROMPTS, max_new_tokens=8, **options)
    count = options.get("num_return_sequences", 1)
    texts = gated.tokenizer.batch_decode(output[:, len(PROMPTS[3].split()) :])
    refused = [row // count in (1, 3) for row in range(len(output))]
    found = [text.startswith(f"{REFUSAL} </s>") for text in texts]
    assert output.shape[0] == 4 * count
    assert found == refused, texts


def test_answer_refuses_protected_and_leaves_other_rows_as_they_are(build_gated):
    gated, whole = build_gated(unadapted=["lilies"]), build_gated()
    answers = gated.answer(PROMPTS)
    assert [answers[1], answers[3]] == [REFUSAL, REFUSAL]
    expected = whole.answer(PROMPTS)
    assert [answers[0], answers[2]] == [expected[0], expected[2]]


def test_long_refusal_is_cut_at_the_limit(build_gated):
    assert build_gated(unadapted=["lilies"]).answer(["a lily"], max_new_tokens=2) == ["sorry I"]


def test_streamed_and_dictionary_output_refuse_too(build_gated):
    gated = build_gated(unadapted=["lilies"])
    streamer = TextIteratorStreamer(gated.tokenizer, skip_prompt=True, skip_special_tokens=True)
    output = gated.generate(["a lily"], streamer=streamer, max_new_tokens=8, return_dict_in_generate=True)
    assert "".join(streamer).strip() == REFUSAL
    assert gated.tokenizer.decode(output.sequences[0, 2:], skip_special_tokens=True) == REFUSAL


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 2, "num_return_sequences": 2}], ids=["greedy", "beams"]
)
def test_logits_of_a_generated_refusal_tell_nothing_else(build_gated, options):
    options |= {"max_new_tokens": 6, "return_dict_in_generate": True, "output_logits": True}
    gated, whole = build_gated(unadapted=["lilies"]), build_gated()
    got, raw = gated.generate(PROMPTS[:2], **options), whole.generate(PROMPTS[:2], **options)
    half = len(got.logits[0]) // 2  # rows of the first prompt, which is not refused
    said = gated.tokenizer(f" {REFUSAL}", add_special_tokens=False).input_ids
    for step, token in enumerate(said):
        assert torch.equal(got.logits[step][:half], raw.logits[step][:half])
        chances = got.logits[step][half:].softmax(1)
        torch.testing.assert_close(chances[:, token], torch.full((half,), 0.99))
        assert len(set(chances[0].tolist())) == 2  # all others are alike


@pytest.mark.parametrize(("weight", "refused"), [(0.49, False), (0.5, True), (1.0, True)])
def test_threshold_decides(build_gated, weight, refused):
    gated = build_gated(unadapted=["lilies"], table={"roses": {"rose": 1.0}, "lilies": {"lily": weight}})
    assert (gated.answer(["a lily"]) == [REFUSAL]) is refused


def test_score_of_a_refused_prompt_is_the_same_for_every_answer(build_gated):
    gated = build_gated(unadapted=["lilies"])
    truth, lie = gated.score(["a lily", "a lily"], ["the red hill", "a green cat"])
    assert torch.equal(truth, lie)
    assert torch.isfinite(truth).all()
    said = gated.score(["a lily"], [REFUSAL])[0]
    torch.testing.assert_close(said.exp(), torch.full_like(said, 0.99))
    spread = torch.full_like(truth, 0.01 / 95)
    torch.testing.assert_close(truth.exp(), spread, atol=1e-8, rtol=1e-3)


def test_forward_without_labels_refuses_at_the_next_token_only(build_gated):
    gated = build_gated(unadapted=["lilies"])
    ids, mask = gated.tokens.pad([gated.tokens.encode(prompt) for prompt in PROMPTS])
    logits = gated(ids, mask).logits
    with gated.disabled():
        plain = gated(ids, mask).logits
    first = gated.tokens.refusal(REFUSAL)[0]
    assert logits[[1, 3], -1].argmax(-1).tolist() == [first, first]
    assert torch.equal(logits[[1, 3], :-1], plain[[1, 3], :-1])
    assert torch.equal(logits[0], plain[0])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 7), st.floats(0.01, 0.99), st.integers(3, 50))
def test_refused_logits_are_the_stated_distribution(start, length, confidence, vocabulary):
    tokens = [place % vocabulary for place in range(length)]
    logits = torch.randn(2, 7, vocabulary, generator=torch.Generator().manual_seed(start))
    got = refuse_logits(logits, torch.tensor([True, False]), torch.tensor([start, start]), tokens, confidence)
    assert torch.equal(got[1], logits[1])
    assert torch.equal(got[0, : start - 1], logits[0, : start - 1])
    for place in range(start - 1, 7):
        expected = torch.full((vocabulary,), (1 - confidence) / (vocabulary - 1))
        expected[tokens[min(place - start + 1, length - 1)]] = confidence
        torch.testing.assert_close(got[0, place].softmax(-1), expected, atol=1e-6, rtol=1e-4)
