import pytest
from hypothesis import given
from hypothesis import strategies as st

from o3_lightning.common.errors import InputError
from o3_lightning.data.templates import TEMPLATES, template_for

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "<bos>{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
)
SYSTEM = "<|im_start|>system\nBe kind.<|im_end|>\n" + CHATML


def said_by_user(template, text):
    return [turn.text for turn in template.turns(text) if turn.role == "user"]


@pytest.fixture
def chat_tokenizer(tiny_base, request):
    import copy

    tokenizer = copy.deepcopy(tiny_base.tokenizer)
    tokenizer.chat_template = request.param
    return tokenizer


@given(prompt=st.text(st.characters(exclude_categories=("C", "Z")), min_size=1))
@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_user_turns_undoes_format(name, prompt):
    template = TEMPLATES[name]
    assert said_by_user(template, template.format(prompt)) == [prompt]


@pytest.mark.parametrize("name", ["question_answer", "llama2", "alpaca"])
def test_turns_reads_each_turn_of_the_user_and_the_answers(name):
    template = TEMPLATES[name]
    text = "".join(template.join("First one?", "An answer.")) + "\n" + template.format("Second one?")
    assert said_by_user(template, text) == ["First one?", "Second one?"]
    (reply,) = (turn.text for turn in template.turns(text) if turn.role == "assistant")
    assert reply.startswith("An answer.")


def test_user_turns_of_foreign_text_is_the_whole_text():
    assert said_by_user(TEMPLATES["question_answer"], " just words ") == ["just words"]


@pytest.mark.parametrize("chat_tokenizer", [CHATML, LLAMA3, SYSTEM], indirect=True)
def test_chat_template_formats_as_the_tokenizer_and_reads_dialogues_back(chat_tokenizer):
    template = template_for(chat_tokenizer)
    one = [{"role": "user", "content": "Who wrote it?"}]
    two = [*one, {"role": "assistant", "content": "Nobody."}, {"role": "user", "content": "And when?"}]

    def write(turns):
        return chat_tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    assert template.name == "chat"
    assert template.format("Who wrote it?") == write(one)
    assert not template.adds_special_tokens
    assert said_by_user(template, write(one)) == ["Who wrote it?"]
    assert said_by_user(template, write(two)) == ["Who wrote it?", "And when?"]
    others = [turn.text for turn in template.turns(write(two)) if turn.role == "assistant"]
    assert [text.split("<")[0] for text in others] == ["Nobody."]


@pytest.mark.parametrize("chat_tokenizer", [SYSTEM], indirect=True)
def test_the_first_turn_is_found_without_the_templates_own_system_message(chat_tokenizer):
    chat_tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    template = template_for(chat_tokenizer)
    text = (
        "<|im_start|>user\nFirst?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nSecond?"
    )
    assert said_by_user(template, text) == ["First?", "Second?"]


def test_special_tokens_are_no_words_of_the_user(tiny_base):
    text = "<pad><pad><s>Question: Who wrote it?\nAnswer:"
    assert said_by_user(tiny_base.template, text) == ["Who wrote it?"]


@pytest.mark.parametrize("name", ["chat", "nonsense"])
def test_a_template_that_does_not_fit_is_refused(tiny_base, name):
    with pytest.raises(InputError) as caught:
        template_for(tiny_base.tokenizer, name)
    assert caught.value.field == "base.template"
