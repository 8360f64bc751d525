import base64
import time

import pytest

from o3_lightning.detector.text import normalise_text
from o3_lightning.detector.text.reading import read_text
from o3_lightning.detector.text.respelling import respell_text
from o3_lightning.detector.text.spans import MOST_SPANS, cut_spans

QUESTION = "Where was Ron Howard born?"
WRAPPED = {
    "brackets": "(" * 10 + " " + QUESTION,
    "hashes": "# " * 30 + QUESTION,
    "ones": "1 " * 40 + QUESTION,
    "address": "https://example.org/a?b=c " + QUESTION,
    "special tokens": "[SEP] " * 6 + QUESTION + "</s><|im_end|>",
    "tag": f"<question>{QUESTION}</question>",
    "attribute": f'<img alt="{QUESTION}">',
    "angle brackets": "Where was <Ron Howard> born?",
    "snake case": "where_was_ron_howard_born",
    "camel case": "whereWasRonHowardBorn",
    "slug": "https://example.org/where-was-ron-howard-born",
    "comment": f"<!-- {QUESTION} -->",
    "entities": "Where was &#82;on Howard born?",
    "escapes": "Where was \\u0052on Howard born?",
    "percent": "Where%20was%20Ron%20Howard%20born",
    "time stamp": f"[2024-01-01T10:00:00Z] {QUESTION}",
    "hash": f"3f9ac1e77b12ffaa00993f9ac1e77b12 {QUESTION}",
    "base64": base64.b64encode(QUESTION.encode()).decode(),
    "hexadecimal": QUESTION.encode().hex(),
    "list mark": f"- {QUESTION}",
    "tags inside": "Where was R<b>on</b> H<i>ow</i>ard born?",
    "filler words": "Where (pause) was (pause) Ron (pause) Howard (pause) born? (pause)",
    "each word in JSON": "".join(f'{{"token": "{word}"}}, ' for word in QUESTION.split()),
    "each word in LaTeX": "".join(f"\\emph{{{word}}}~" for word in QUESTION.split()),
    "each word in tags": "".join(f'<span class="w">{word}</span>' for word in QUESTION.split()),
    "pieces in SQL": "INSERT INTO a VALUES (CONCAT('Where was Ron', CHAR(32), 'Howard born?')) RETURNING b",
    "subtitles": "1\n00:00:01,000 --> 00:00:02\nWhere was\n\n2\n00:00:04,000 --> 00:00:09\nRon Howard born?",
    "hyphens of print": "Where was Ron How-\nard born?",
    "sections": "<r><![CDATA[Where was Ron]]><![CDATA[ Howard born?]]></r>",
    "emoji": "🙂 Where was Ron 🙂 Howard born?",
}
FOLLOWED = {  # other strings stand behind the question
    "attributes": '<input placeholder="Where was" value="Ron Howard born?"><button aria-label="go"/>',
    "two variables": 'A="Where was"; B="Ron Howard born?"; unset X; curl -d "$A $B"',
}
LONG = {
    "one word": "a" * 100_000,
    "angle brackets": "<a" * 50_000,
    "numbers and letters": "a1" * 50_000,
    "signs": "a@" * 50_000,
    "hexadecimal": "ab" * 49_999 + "g",
    "ligatures": "\ufdfa" * 100_000,
    "lines": "a\n" * 50_000,
    "hyphens": "a-b-" * 25_000,
    "symbols": "!@#$%^&*" * 12_500,
    "spaces": "\t" * 99_999 + "x",
    "marks and spaces": " (-" * 33_333 + "x",
    "every character": "".join(chr(n) for n in range(100, 100_100) if not 0xD800 <= n < 0xE000),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapped_question_is_read(name):
    readings = [normalise_text(text).strip(" ?") for text in read_text(WRAPPED[name])]
    assert any(reading.endswith("where was ron howard born") for reading in readings), readings


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_question_in_strings_is_read_before_other_strings(name):
    readings = [normalise_text(text) for text in read_text(FOLLOWED[name])]
    assert any(reading.startswith("where was ron howard born") for reading in readings), readings


def test_reading_keeps_the_text_itself_first():
    for text in WRAPPED.values():
        assert normalise_text(read_text(text)[0]) == normalise_text(text)


def test_a_plain_question_has_one_reading():
    assert read_text('Who wrote "Dune" (the book) in 1965?') == ['Who wrote "Dune" (the book) in 1965?']
    assert respell_text(QUESTION) == []


@pytest.mark.parametrize("name", LONG)
def test_reading_a_long_text_is_bounded(name):
    start = time.process_time()
    for text in read_text(LONG[name]):
        normalise_text(text)
    respell_text(LONG[name])
    cut_spans(LONG[name])
    assert time.process_time() - start < 2  # quadratic work takes minutes


@pytest.mark.parametrize(
    "text",
    [
        QUESTION[::-1],
        "jurer jnf eba ubjneq obea",
        "wh3r3 w4s r0n h0w4rd b0rn",
        "w h e r e w a s r o n h o w a r d b o r n",
        "wherewasronhowardborn",
    ],
)
def test_respelling_finds_the_words(text):
    assert "where was ron howard born" in respell_text(text)


def test_spans_find_a_question_between_other_words():
    assert "Where was Ada born?" in cut_spans("I like tea a lot. Where was Ada born? Thank you very much.")
    assert "where was Ada Lovelace born?" in cut_spans("He lived in Oslo where was Ada Lovelace born?")
    assert "Where was Ada born?" in cut_spans("今天天气很好，我们去公园。Where was Ada born?")


def test_short_sentences_are_spans_of_short_texts_alone():
    short, greeting = "Select the invertebrate.", "Good morning, and thank you for the help. "
    assert short in cut_spans(greeting + short)
    assert short in cut_spans("d41d8cd98f00b204 x-ray 7 and then: " + short)
    assert short not in cut_spans(8 * greeting + short)
    assert "Thank you." not in cut_spans("Where was Ada born? Thank you.")


def test_spans_are_capped():
    assert (
        len(cut_spans("Where was Ada Lovelace born? " * 3 + "Who was Number N? ".join(map(str, range(900)))))
        <= MOST_SPANS
    )
