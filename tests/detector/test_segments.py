import math
from functools import partial

import pytest

from o3_lightning.common.errors import InputError
from o3_lightning.detector.config import DetectorConfig, SegmentConfig
from o3_lightning.detector.feature_evidence import spread_prompts
from o3_lightning.detector.fusion import read_variants
from o3_lightning.detector.segments import cut_segments, prompt_texts


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
        for r, c in (("system", "s"), ("user", "A?"), ("assistant", "b"), ("user", "c"))
    ]
    assert prompt_texts(chat) == ["A? c", "A?", "c"]


@pytest.mark.parametrize(
    "message", [{"role": "user"}, {"content": "a"}, {"role": "user", "content": 3}, "text"]
)
def test_chat_message_without_text_is_refused(message):
    with pytest.raises(InputError, match="role"):
        prompt_texts([message])


def test_a_question_glued_to_a_sentence_of_a_long_text_is_a_segment():
    filler = "the ship left the harbour early in the morning and the crew was glad about the wind and"
    text = f"{filler} Where was Ada Lovelace born? {filler} came back."
    found = cut_segments(text, window_words=16, stride_words=8, most=96)
    assert "and Where was Ada Lovelace born?" in found
    assert not any(
        "?" in part for part in cut_segments(text.replace("?", "."), window_words=16, stride_words=8, most=96)
    )


def test_a_word_split_between_two_turns_is_whole_again():
    turns = [{"role": "user", "content": text} for text in ("Where was Ad", "a Lovelace born?", "Thanks.")]
    whole, mended, *rest = prompt_texts(turns)
    assert whole == "Where was Ad a Lovelace born? Thanks."
    assert mended == "Where was Ada Lovelace born? Thanks."
    assert rest == ["Where was Ad", "a Lovelace born?", "Thanks."]


def test_a_request_glued_to_text_without_an_end_is_a_segment():
    filler = " ".join(f"Where was the {number}th painter born? Palewick" for number in range(30))
    for asked in ("Which town did Ada Lovelace come from at birth?", "Tell me where Ada Lovelace was born."):
        assert asked in cut_segments(f"{filler} {asked}", window_words=16, stride_words=8, most=96)
        assert asked in cut_segments(f"{asked} {filler}", window_words=16, stride_words=8, most=96)


def test_sentences_outlive_windows_when_there_are_too_many():
    text = " ".join(f"Number {number} is a plain sentence of eight words." for number in range(60))
    kept = cut_segments(text, window_words=16, stride_words=8, most=80)
    assert len(kept) == 80
    assert all(f"Number {number} is a plain sentence of eight words." in kept for number in range(60))


def test_segments_are_held_to_more_than_whole_prompts():
    settings = SegmentConfig(penalty=0.5, penalty_growth=0.25)
    prompts = ["Where was Ada born?", "I like green tea. Where was Ada Quill born? It rains all day."]
    config = DetectorConfig(segments=settings)
    read = partial(read_variants, config=config, repair=lambda text: text)
    texts, owners, penalties = spread_prompts(prompts, config, read)
    assert texts[:2] == [
        "where was ada born?",
        "i like green tea. where was ada quill born? it rains all day.",
    ]
    assert owners.tolist() == [0, 1, 1, 1, 1]
    assert penalties.tolist() == pytest.approx([0, 0] + [0.5 + 0.25 * math.log(3)] * 3)
