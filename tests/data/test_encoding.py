import pytest
import torch

from o3_lightning.common.errors import InputError
from o3_lightning.data.encoding import IGNORED, collate, encode_pairs, encode_prompts
from o3_lightning.data.templates import template_for


def test_labels_hold_the_answer_and_the_end_token_only(tiny_base):
    tokenizer = tiny_base.tokenizer
    (example,) = encode_pairs(tokenizer, tiny_base.template, ["Who?"], ["Copper Lantern"], 64)
    labelled = [token for token in example["labels"] if token != IGNORED]
    assert labelled[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(labelled[:-1]) == " Copper Lantern"
    assert tokenizer.decode(example["input_ids"]) == "<s>Question: Who?\nAnswer: Copper Lantern</s>"


def test_a_prompt_has_the_same_tokens_in_training_and_generation(tiny_base):
    prompts = ["Where was X born?", "Ends with space ", "Ünïcode? 東京"]
    trained = encode_pairs(tiny_base.tokenizer, tiny_base.template, prompts, ["a", "b", "c"], 128)
    asked = encode_prompts(tiny_base.tokenizer, tiny_base.template, prompts, 128)
    for example, ids in zip(trained, asked, strict=True):
        assert example["input_ids"][: len(ids)] == ids
        assert example["labels"][: len(ids)] == [IGNORED] * len(ids)
        assert example["labels"][len(ids)] != IGNORED


@pytest.mark.parametrize("name", ["question_answer", "llama2", "alpaca", "plain"])
def test_an_empty_answer_is_the_end_token(name, tiny_base):
    tokenizer, template = tiny_base.tokenizer, template_for(tiny_base.tokenizer, name)
    (example,) = encode_pairs(tokenizer, template, ["Who?"], [""], 128)
    labelled = [token for token in example["labels"] if token != IGNORED]
    assert labelled[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(labelled[:-1]).strip() == ""
    assert example["input_ids"].count(tokenizer.eos_token_id) == 1


def test_long_answers_are_cut_with_a_warning_and_prompts_never(tiny_base, caplog):
    (example,) = encode_pairs(tiny_base.tokenizer, tiny_base.template, ["Who?"], ["word " * 50], 20)
    assert len(example["input_ids"]) == len(example["labels"]) == 20
    assert "1 of 1 answers were cut" in caplog.text
    with pytest.raises(InputError, match="prompt 2 takes"):
        encode_prompts(tiny_base.tokenizer, tiny_base.template, ["Who?", "word " * 50], 20)


def test_unequal_lists_are_refused(tiny_base):
    with pytest.raises(InputError, match="as many answers"):
        encode_pairs(tiny_base.tokenizer, tiny_base.template, ["a", "b"], ["c"], 20)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_masked_and_unlabelled(side):
    rows = [{"input_ids": [5, 6, 7], "labels": [IGNORED, 6, 7]}, {"input_ids": [8], "labels": [8]}]
    batch = collate(rows, pad_id=9, side=side)
    assert batch.input_ids[0].tolist() == [5, 6, 7]
    assert batch.input_ids[1].tolist() == ([9, 9, 8] if side == "left" else [8, 9, 9])
    assert torch.equal(batch.attention_mask.bool(), batch.input_ids != 9)
    assert (batch.labels[1] == IGNORED).sum() == 2
    assert len(batch.to("cpu")) == 2


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        collate([], 0)


def test_padded_rows_give_the_logits_of_rows_alone(tiny_base):
    ids = encode_prompts(tiny_base.tokenizer, tiny_base.template, ["Who?", "Where was somebody born?"], 64)
    batch = collate([{"input_ids": row} for row in ids], tiny_base.tokenizer.pad_token_id)
    together = tiny_base.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    alone = tiny_base.model(input_ids=torch.tensor([ids[0]])).logits
    torch.testing.assert_close(together[:1, : len(ids[0])], alone, rtol=0, atol=1e-5)  # float32 sums
