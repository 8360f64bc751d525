import pytest
from hypothesis import given
from hypothesis import strategies as st

from o3_lightning.detector.text import normalise_text


@pytest.mark.parametrize(
    "disguised",
    [
        "WHERE WAS ADA QUILL BORN?",
        "Whеrе wаs Adа Quill bоrn?",
        "Where was A\u200bda Qui\u00adll born?",
        "Ｗｈｅｒｅ was Ada Quill born?",
        "Where was Ádà Quíll börn?",
        "Where  was\tAda\nQuill born?",
        "Where was 𝐀𝐝𝐚 Quill born?",
        "Where w4s Ada Quill b0rn?",
    ],
    ids=["case", "cyrillic", "zero-width", "full-width", "accents", "spaces", "mathematical", "digits"],
)
def test_disguises_are_undone(disguised):
    assert normalise_text(disguised) == "where was ada quill born?"


@pytest.mark.parametrize(
    "text", ["где родилась ада?", "hello!", "1990s, $20000 & 24/7", "covid19", "mp3 and h2"]
)
def test_honest_text_only_loses_case(text):
    assert normalise_text(text.upper()) == text


@given(st.text(max_size=60))
def test_normalising_any_text_never_fails(text):
    assert normalise_text(text) == normalise_text(text).strip()
