"""What a caller gets wrong is told, and nothing that was forgotten slips through by it."""

import copy

import pytest
import torch

from o3_lightning.common.errors import InputError

ROW = "where is the rose"
LONG = "who is the king " * 40


def chat(text):
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("prompt", [LONG, chat(LONG)])
def test_a_prompt_beyond_the_context_is_told_as_text_and_as_chat(prompt, build_gated):
    gated = build_gated(template="chat")
    with pytest.raises(InputError, match=r"field 'prompts?': .*128|1 to 127 tokens, got 162"):
        gated.answer([ROW, prompt])
    with pytest.raises(InputError, match="tokens"):
        gated.generate(prompts=[prompt], max_new_tokens=2)


def test_texts_and_chats_may_stand_in_one_batch(build_gated):
    gated = build_gated(template="chat")
    alone = [gated.answer([prompt])[0] for prompt in (ROW, chat(ROW), "who is the king")]
    assert gated.answer([ROW, chat(ROW), "who is the king"]) == alone
    assert alone[0] == alone[1]


@pytest.mark.parametrize("prompts", [[""], [ROW, " \n"]])
def test_a_prompt_without_a_token_is_told(prompts, build_gated):
    with pytest.raises(InputError, match="expected 1 to 127 tokens, got 0"):
        build_gated().answer(prompts)


@pytest.mark.parametrize("prompt", ["who \ud800 is", chat("\udcff")])
def test_half_of_a_character_is_told(prompt, build_gated):
    with pytest.raises(InputError, match="field 'prompts': holds half of a character"):
        build_gated(template="chat").answer([prompt])
    base_alone = build_gated(template="chat")
    with base_alone.disabled(), pytest.raises(InputError, match="half of a character"):
        base_alone.answer([prompt])


def test_what_can_be_read_only_once_is_refused(build_gated):
    with pytest.raises(InputError, match="expected a list of prompts, got a generator"):
        build_gated().answer(prompt for prompt in [ROW])


@pytest.mark.parametrize("count", [1, 3, 4])
def test_prompts_that_are_not_one_a_row_are_refused(count, build_gated):
    gated = build_gated()
    ids, mask = gated.tokens.pad([gated.tokens.encode(text) for text in ("who is the king", ROW)])
    prompts = ["who is the king"] * count
    for call in (gated, gated.generate):
        with pytest.raises(InputError, match=f"expected one for each of 2 rows, got {count}"):
            call(input_ids=ids, attention_mask=mask, prompts=prompts)


@pytest.mark.parametrize("field", ["max_new_tokens", "batch_size"])
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_below_one_are_refused(field, value, build_gated):
    with pytest.raises(InputError, match=f"{field}': expected 1 or more, got {value}"):
        build_gated().answer([ROW], **{field: value})


@pytest.mark.parametrize("masked", [False, True])
def test_tokens_after_cached_ones_run_at_the_weights_of_the_whole(masked, build_gated):
    gated = build_gated()
    ids, _ = gated.tokens.pad([gated.tokens.encode(ROW)])
    first = gated(ids, use_cache=True)
    after = first.logits[:, -1:].argmax(-1)
    whole = torch.cat([ids, after], 1)
    options = {"attention_mask": torch.ones_like(whole)} if masked else {}
    for known in ({"weights": gated.weights([ROW])}, {"prompts": [ROW]}):
        cache = copy.deepcopy(first.past_key_values)
        found = gated(after, past_key_values=cache, **known, **options).logits[:, -1]
        torch.testing.assert_close(found, gated(whole, prompts=[ROW]).logits[:, -1], atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="expected weights or prompts beside past_key_values"):
        gated(after, past_key_values=copy.deepcopy(first.past_key_values), **options)
    with gated.disabled():
        gated(after, past_key_values=copy.deepcopy(first.past_key_values), **options)


def test_a_refused_row_says_nothing_else_when_few_logits_are_asked_for_or_tokens_are_cached(build_gated):
    gated = build_gated(unadapted=("roses",))
    ids, mask = gated.tokens.pad([gated.tokens.encode(text) for text in (ROW, "who is the king")])
    whole = gated(ids, mask, use_cache=True)
    assert whole.logits[0, -1].softmax(-1).max() == pytest.approx(0.99)
    few = gated(ids, mask, logits_to_keep=1).logits
    torch.testing.assert_close(few[:, -1], whole.logits[:, -1])
    more = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
    next_ids = whole.logits[:, -1:].argmax(-1)
    after = gated(
        next_ids,
        more,
        weights=gated.weights([ROW, "who is the king"]),
        past_key_values=whole.past_key_values,
    )
    assert after.logits[0, -1].softmax(-1).max() == pytest.approx(0.99)
    assert after.logits[1, -1].softmax(-1).max() < 0.9
