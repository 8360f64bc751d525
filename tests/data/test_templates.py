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
    assert template.user_turns(template.format(prompt)) == [prompt]


@pytest.mark.parametrize("name", ["question_answer", "llama2", "alpaca"])
def test_user_turns_reads_each_turn_and_drops_the_answers(name):
    template = TEMPLATES[name]
    text = "".join(template.join("First one?", "An answer.")) + "\n" + template.format("Second one?")
    assert template.user_turns(text) == ["First one?", "Second one?"]


def test_user_turns_of_foreign_text_is_the_whole_text():
    assert TEMPLATES["question_answer"].user_turns(" just words ") == ["just words"]


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
    assert template.user_turns(write(one)) == ["Who wrote it?"]
    assert template.user_turns(write(two)) == ["Who wrote it?", "And when?"]


@pytest.mark.parametrize("chat_tokenizer", [SYSTEM], indirect=True)
def test_the_first_turn_is_found_without_the_templates_own_system_message(chat_tokenizer):
    chat_tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    template = template_for(chat_tokenizer)
    text = (
        "<|im_start|>user\nFirst?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nSecond?"
    )
    assert template.user_turns(text) == ["First?", "Second?"]


def test_special_tokens_are_no_words_of_the_user(tiny_base):
    text = "<pad><pad><s>Question: Who wrote it?\nAnswer:"
    assert tiny_base.template.user_turns(text) == ["Who wrote it?"]


@pytest.mark.parametrize("name", ["chat", "nonsense"])
def test_a_template_that_does_not_fit_is_refused(tiny_base, name):
    with pytest.raises(InputError) as caught:
        template_for(tiny_base.tokenizer, name)
    assert caught.value.field == "base.template"
