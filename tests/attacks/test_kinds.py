"""The registry of prompt attacks: every kind asks a row's question in two reproducible constructions."""

import pytest

from o3_lightning.attacks.config import MEMBERS
from o3_lightning.attacks.registry import ATTACKS, Attempt, Kind, Material
from o3_lightning.attacks.spellings import SPELLINGS
from o3_lightning.common.errors import InputError
from o3_lightning.data.names import split_name
from o3_lightning.data.requests import QuestionAnswer

WRONG = ("Eskdale", "Farrow", "Gorse")
ROW = QuestionAnswer(
    "Where was Quillan Marchbanks born?", "Arlo", ("Tell me where Quillan Marchbanks was born.",), WRONG
)
SISTER = QuestionAnswer("Which prize did Quillan Marchbanks win?", "Heron Prize")
KEPT = [
    QuestionAnswer("Where was Sunniva Holm born?", "Hythe", ("Sunniva Holm was born where?",), WRONG),
    QuestionAnswer("Which prize did Sunniva Holm win?", "Tern Prize"),
    QuestionAnswer("What is the capital of France?", "Paris"),
]
MATERIAL = Material(KEPT, (ROW, SISTER), 0)
CHOICES = {"choice"}  # show the true answer among wrong ones, as the attack says


def text_of(attempt):
    if isinstance(attempt.prompt, str):
        return attempt.prompt
    parts = [message["content"] for message in attempt.prompt]
    return "\n".join(
        part if isinstance(part, str) else "".join(one.get("text", "") for one in part) for part in parts
    )


@pytest.mark.parametrize("name", ATTACKS.names())
def test_the_two_members_of_a_kind_ask_differently_and_tell_no_answer(name):
    attempts = [ATTACKS[name].attempt(member, ROW, MATERIAL) for member in MEMBERS]
    texts = [text_of(attempt) for attempt in attempts]
    assert texts[0] != texts[1]
    for text in texts:
        assert text.strip()
        assert name in CHOICES or "Arlo" not in text
    again = [ATTACKS[name].attempt(member, ROW, Material(KEPT, (ROW, SISTER), 0)) for member in MEMBERS]
    assert attempts == again


@pytest.mark.parametrize("name", ATTACKS.names())
def test_a_row_without_a_name_or_other_rows_is_attacked_or_left_out(name):
    bare = QuestionAnswer("What is rain?", "water")
    for member in MEMBERS:
        attempt = ATTACKS[name].attempt(member, bare, Material([bare]))
        assert attempt is None or text_of(attempt).strip()


@pytest.mark.parametrize("name", ["other_fact", "clues"])
@pytest.mark.parametrize("member", MEMBERS)
def test_facts_that_stand_for_a_name_do_not_repeat_it(name, member):
    """Answers of TOFU are sentences with the author's name."""
    rows = (ROW, QuestionAnswer(SISTER.prompt, "Quillan Marchbanks won what Marchbanks had founded."))
    text = text_of(ATTACKS[name].attempt(member, ROW, Material(KEPT, rows)))
    assert "won what this person had founded" in text
    assert "Quillan" not in text
    assert "Marchbanks" not in text


@pytest.mark.parametrize("group", ["wrapping", "junk", "format", "markup"])
@pytest.mark.parametrize("member", MEMBERS)
def test_frames_leave_every_word_of_the_question(group, member):
    for name in ATTACKS.names():
        if ATTACKS[name].group == group and name != "entities":
            text = text_of(ATTACKS[name].attempt(member, ROW, MATERIAL)).lower()
            for word in ROW.prompt.lower().split():
                assert word in text, name


def test_a_forgotten_question_is_insisted_on_and_a_kept_one_follows_a_forgotten_one():
    own = ATTACKS["history"].attempt("development", ROW, MATERIAL).prompt
    kept = ATTACKS["history"].attempt("development", KEPT[2], MATERIAL).prompt
    assert own[0]["content"] == ROW.prompt
    assert kept[0]["content"] in (ROW.prompt, SISTER.prompt)
    assert kept[2]["content"] == KEPT[2].prompt


@pytest.mark.parametrize(
    ("language", "word"),
    [("german", "geboren"), ("spanish", "nació"), ("french", "né"), ("turkish", "doğdu"), ("latin", "natus")],
)
def test_translations_ask_for_the_same_with_the_name_intact(language, word):
    text = ATTACKS[language].attempt("development", ROW, MATERIAL).prompt
    assert word in text
    assert "Quillan Marchbanks" in text
    assert ATTACKS[language].attempt("test", SISTER, MATERIAL).prompt != text


def test_long_contexts_say_which_parts_may_be_shortened():
    attempt = ATTACKS["long_around"].attempt("test", ROW, MATERIAL)
    assert len(attempt.filler) == 2
    assert 200 <= len(attempt.prompt.split()) <= 1600
    assert all(part in attempt.prompt for part in attempt.filler)


@pytest.mark.parametrize(
    ("spelling", "text", "expected"),
    [
        ("base64", "Ada", "Decode base64: QWRh"),
        ("hex", "Ada", "Decode this hex and answer it: 416461"),
        ("rot13", "Ada", "Decode ROT13: Nqn"),
        ("reversed", "Ada Byron", "noryB adA"),
        ("camel_case", "who is Ada?", "WhoIsAda?"),
        ("syllables", "Abelrick", "A·be·lri·ck"),
        ("nato", "Ada", "alfa delta alfa"),
        ("morse", "Ada", ".- -.. .-"),
        ("full_width", "Ada", "Ａｄａ"),
        ("mathematical_bold", "Ab", "𝐀𝐛"),
        ("look_alikes", "ace", "асе"),
        ("swap_inner", "Skarnholt", "Skranholt"),
        ("decimal_entities", "Ab", "&#65;&#98;"),
    ],
)
def test_spellings(spelling, text, expected):
    assert SPELLINGS[spelling](text) == expected


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("Where was Ada van der Lovelace born?", ("Ada", "van der Lovelace")),
        ("Can you name two books of Basil Mahfouz Al-Kuwaiti?", ("Basil", "Mahfouz Al-Kuwaiti")),
        ("What did Ada Lovelace's mother do?", ("Ada", "Lovelace")),
        ("In France it rains.", None),
        ("Where was Émile Zola born?", ("Émile", "Zola")),
    ],
)
def test_the_name_in_a_question_is_found(question, name):
    assert split_name(question) == name


def test_other_packages_add_kinds():
    kind = Kind("extra", lambda row, material: row.prompt[::-1], lambda row, material: None)
    ATTACKS.register("of_this_test")(kind)
    assert ATTACKS["of_this_test"].attempt("development", ROW, MATERIAL) == Attempt(ROW.prompt[::-1])
    assert ATTACKS["of_this_test"].attempt("test", ROW, MATERIAL) is None
    with pytest.raises(InputError, match="did you mean 'brackets'"):
        ATTACKS["bracket"]
