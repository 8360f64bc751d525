import pytest

from o3_lightning.detector.segments import cut_segments, prompt_texts
from o3_lightning.errors import InputError


def cut(text, most=64):
    return cut_segments(text, window_words=6, stride_words=3, most=most)


def test_short_sentence_has_no_segments():
    assert cut("Where was Ada born?") == []


def test_every_sentence_and_every_word_is_covered():
    text = "One two three four five six seven eight nine ten. Where was Ada born? Eleven twelve."
    found = cut(text)
    assert "Where was Ada born?" in found
    assert set(text.split()) <= {word for part in found for word in part.split()}
    assert all(len(part.split()) <= 10 for part in found)


def test_number_of_segments_is_limited():
    assert len(cut("word " * 2000, most=10)) <= 10
    assert len(cut(" ".join(f"word{i}" for i in range(2000)), most=10)) == 10


def test_chat_gives_user_turns_and_their_concatenation():
    chat = [
        {"role": r, "content": c}
        for r, c in (("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"))
    ]
    assert prompt_texts(chat) == ["a c", "a", "c"]


@pytest.mark.parametrize(
    "message", [{"role": "user"}, {"content": "a"}, {"role": "user", "content": 3}, "text"]
)
def test_chat_message_without_text_is_refused(message):
    with pytest.raises(InputError, match="role"):
        prompt_texts([message])
