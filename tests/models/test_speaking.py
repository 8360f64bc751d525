"""A base model speaks as its makers trained it: ends of answers and turns, dates, options, system prompts."""

from datetime import datetime

import pytest
import torch
from transformers import GenerationConfig

from o3_lightning.common.errors import InputError
from o3_lightning.data.encoding import encode_pairs
from o3_lightning.evaluation.reference import plain_model
from o3_lightning.models.base import BaseConfig, load_base
from tests.models.scripted import TEMPLATE, scripted_model, scripted_tokenizer

SAYS = {"<|bot|>": "in", "in": "Lindhavn", "Lindhavn": "<|end|>", "<|end|>": "in", "</s>": "in"}
DATED = "{{ 'On ' + strftime_now('%d') + ' ' }}" + TEMPLATE
THINKING = TEMPLATE.replace(
    "<|bot|>{% endif %}", "<|bot|>{% if not enable_thinking %} sorry{% endif %}{% endif %}"
)
STRICT = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"


def opened(folder, **options):
    return load_base(BaseConfig(id=str(folder), device="cpu", **options))


def chat(text):
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    ("ending", "gen_eos"), [("</s>", "<|end|>"), ("<|end|>", "</s>"), ("<|end|>", None), ("</s>", None)]
)
def test_an_answer_ends_at_each_end_token(tmp_path, ending, gen_eos):
    """The tokenizer's, the generation settings' and the template's end count, whichever is named."""
    base = opened(scripted_model(tmp_path, SAYS | {"Lindhavn": ending}, gen_eos=gen_eos))
    gated = plain_model(base)
    assert gated.answer(["where", "where is it ?"], max_new_tokens=9) == ["in Lindhavn"] * 2
    output = gated.generate(["where is it ?"], max_new_tokens=9)
    assert base.tokenizer.decode(output[0]).split()[-1] == ending


def test_generation_settings_without_an_end_keep_the_model_s_ends(tmp_path):
    base = opened(scripted_model(tmp_path, SAYS, gen_eos="</s>"))
    ids = torch.tensor([plain_model(base).tokens.encode("where")])
    settings = GenerationConfig(max_new_tokens=9, do_sample=False)
    said = plain_model(base).generate(input_ids=ids, generation_config=settings)[0]
    assert base.tokenizer.decode(said).split()[-1] == "<|end|>"


def test_a_turn_that_ends_in_plain_text_ends_there(tmp_path):
    tokenizer = scripted_tokenizer(TEMPLATE.replace("<|end|>", "###"))
    base = opened(scripted_model(tmp_path, SAYS | {"Lindhavn": "###", "###": "in"}, tokenizer, gen_eos=None))
    assert base.template.end == " ###"
    assert plain_model(base).answer(["where"], max_new_tokens=9) == ["in Lindhavn"]
    example = encode_pairs(base.tokenizer, base.template, ["where"], ["in Lindhavn"], 64)[0]
    assert base.tokenizer.decode(example["input_ids"]).endswith("Lindhavn ###")


@pytest.mark.parametrize("gen_eos", ["<|end|>", "</s>"])
def test_what_the_model_says_has_probability_one_to_its_end(tmp_path, gen_eos):
    base = opened(scripted_model(tmp_path, SAYS, gen_eos=gen_eos))
    gated = plain_model(base)
    (scores,) = gated.score(["where is it ?"], ["in Lindhavn"])
    assert len(scores) == 3
    assert float(scores.exp().min()) > 0.99
    assert base.tokenizer.decode(gated.tokens.refusal("sorry")) == "sorry <|end|>"


def test_a_tokenizer_without_chat_template_ends_turns_in_its_end_token(tmp_path):
    base = opened(scripted_model(tmp_path, SAYS, scripted_tokenizer(template=None)))
    example = encode_pairs(base.tokenizer, base.template, ["where"], ["Oslo"], 64)[0]
    assert base.tokenizer.convert_ids_to_tokens(example["labels"][-2:]) == ["Oslo", "</s>"]


def test_text_and_chat_are_the_same_tokens_in_another_template(tmp_path):
    gated = plain_model(opened(scripted_model(tmp_path, SAYS), template="question_answer"))
    assert gated.tokens.encode("where") == gated.tokens.encode(chat("where"))


def test_text_chat_and_tokens_are_the_same_content(tmp_path):
    gated, prompt = plain_model(opened(scripted_model(tmp_path, SAYS))), " where is it ? "
    text, messages = gated.tokens.encode(prompt), gated.tokens.encode(chat(prompt))
    assert text == messages
    (turn,) = gated.tokens.turns(torch.tensor([text]), torch.ones(1, len(text), dtype=torch.int64))[0]
    assert (turn.role, turn.text) == ("user", prompt.strip())


@pytest.mark.parametrize(
    "clock",
    [
        "strftime_now('%d')",
        'strftime_now(format = "%d")',
        "strftime_now('%' + 'd')",
        "(date_string or '') if date_string is defined else strftime_now('%d')",
    ],
)
def test_the_date_is_the_configured_one_or_that_of_the_first_look(tmp_path, monkeypatch, clock):
    dated = DATED.replace("strftime_now('%d')", f"({clock})")
    folder = scripted_model(tmp_path, SAYS, scripted_tokenizer(dated))
    fixed = opened(folder, date_string="2024-07-26")
    assert fixed.template.format("where").startswith("On 26 <")
    assert fixed.settings["date_string"] == "26 Jul 2024"
    today = opened(folder)
    first = today.template.format("where")
    assert first.startswith(f"On {datetime.now():%d} <")

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 1, 1)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Tomorrow)
    assert today.template.format("where") == first
    reopened = opened(folder, date_string=today.settings["date_string"])
    assert reopened.template.format("where") == first


def test_a_template_that_reads_a_date_gets_the_configured_one(tmp_path):
    dated = (
        "{% if date_string is not defined %}{% set date_string = '1 Jan 2020' %}{% endif %}{{ date_string }}"
    )
    folder = scripted_model(tmp_path, SAYS, scripted_tokenizer(dated + TEMPLATE))
    assert opened(folder, date_string="2024-07-26").template.format("where").startswith("26 Jul 2024<")
    assert opened(folder).template.format("where").startswith("1 Jan 2020<")


def test_a_template_without_a_date_records_none(tmp_path):
    assert opened(scripted_model(tmp_path, SAYS)).settings["date_string"] == ""


def test_options_of_the_template_reach_it(tmp_path):
    folder = scripted_model(tmp_path, SAYS, scripted_tokenizer(THINKING))
    on = opened(folder, chat_template_kwargs={"enable_thinking": True})
    off = opened(folder, chat_template_kwargs={"enable_thinking": False})
    assert on.template.format("where") + " sorry" == off.template.format("where")
    assert plain_model(off).tokens.encode(chat("where")) == plain_model(off).tokens.encode("where")


def test_a_system_prompt_opens_every_chat_without_one(tmp_path):
    base = opened(scripted_model(tmp_path, SAYS), system_prompt="it is sorry")
    own = [{"role": "system", "content": "On day"}, *chat("where")]
    assert "it is sorry" in base.template.format("where")
    assert "it is sorry" not in base.template.chat.render(own)


@pytest.mark.parametrize(
    ("template", "options", "field"),
    [
        (STRICT + TEMPLATE, {"system_prompt": "it is"}, "no system role"),
        (TEMPLATE, {"system_prompt": "it is", "template": "plain"}, "base.system_prompt"),
        (TEMPLATE, {"date_string": "yesterday"}, "base.date_string"),
        ("{{ raise_exception('never') }}", {}, "never"),
    ],
)
def test_what_cannot_be_rendered_is_refused_on_loading(tmp_path, template, options, field):
    folder = scripted_model(tmp_path, SAYS, scripted_tokenizer(template))
    with pytest.raises(InputError, match=field):
        opened(folder, **options)


def test_two_turns_that_a_strict_template_rejects_are_refused(tmp_path):
    gated = plain_model(opened(scripted_model(tmp_path, SAYS, scripted_tokenizer(STRICT + TEMPLATE))))
    with pytest.raises(InputError, match="the chat template rejects it: no system role"):
        gated.answer([[{"role": "system", "content": "it"}, *chat("where")]])
