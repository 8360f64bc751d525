import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from o3_lightning.detector.spelling import SpellingTable, WordRepair, hash_word, slips

WORDS = (
    "the",
    "where",
    "was",
    "born",
    "sort",
    "shoots",
    "shorts",
    "writer",
    "is",
    "of",
    "a",
    "honour",
    "has",
)
NAME = "skarnholt"


@pytest.fixture(scope="module")
def table():
    return SpellingTable(WORDS, torch.arange(len(WORDS), dtype=torch.float32))


@pytest.fixture(scope="module")
def repair(table):
    return WordRepair(table, lambda token: True, set(table.hash_rare_words([f"Was {NAME} born?"]).tolist()))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("where was sakrnholt born?", "where was skarnholt born?"),
        ("where was Skarnhol born?", "where was skarnholt born?"),
        ("where was skarnholtt's book", "where was skarnholt's book"),
        ("wehre wsa skornholt bron", "where was skarnholt born"),
        ("hoonurh as", "honour has"),
        ("skarnhol twas born", "skarnholt was born"),
        ("where was Skarnholt born?", "where was Skarnholt born?"),
        ("zyx 12 été", "zyx 12 été"),
    ],
)
def test_slips_are_undone_and_the_rest_is_left(repair, typed, meant):
    assert repair.repair(typed) == meant


def test_without_the_hash_a_name_is_not_repaired(table):
    assert WordRepair(table, lambda token: True).repair("sakrnholt") == "sakrnholt"


def test_words_that_matter_go_first_then_the_likelier_slip(table):
    plain = WordRepair(table, lambda token: False)
    assert plain.repair("shrots") == "shorts"  # exchanged letters before a wrong one
    favoured = WordRepair(table, lambda token: token == WORDS.index("shoots"))
    assert favoured.repair("shrots") == "shoots"


def test_short_names_are_left_where_another_is_one_letter_away(table):
    people = WordRepair(table, lambda token: True, set(table.hash_rare_words(["aysha gebra ahmad"]).tolist()))
    assert people.repair("aisha gebre hamad") == "aisha gebre hamad"
    assert people.repair("obrn") == "born"
    assert WordRepair(table, lambda token: False).repair("obrn") == "obrn"
    assert people.repair("asyha gerba ahmda") == "aysha gebra ahmad"


def test_hashes_hold_no_vocabulary_word_and_no_text(table):
    hashes = table.hash_rare_words(["Where was Skarnholt", "the skarnholt"])
    assert hashes.tolist() == [hash_word(NAME)]
    assert 0 < int(hashes) < 2**32


def within_one_slip(one, other):
    """Whether a single slip separates two words, from the definition."""
    if len(one) == len(other):
        wrong = [place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
        exchanged = len(wrong) == 2 and wrong[1] == wrong[0] + 1
        return len(wrong) <= 1 or (
            exchanged and one[wrong[0]] == other[wrong[1]] and one[wrong[1]] == other[wrong[0]]
        )
    short, long = sorted((one, other), key=len)
    return len(long) == len(short) + 1 and any(
        long[:place] + long[place + 1 :] == short for place in range(len(long))
    )


def test_slips_are_all_words_one_slip_away():
    found = set(itertools.chain(*slips("abc")))
    letters = "abcz"
    every = {"".join(word) for size in (2, 3, 4) for word in itertools.product(letters, repeat=size)}
    assert {word for word in found if set(word) <= set(letters)} == {
        word for word in every if within_one_slip("abc", word)
    }


@given(st.text(max_size=40))
def test_repairing_any_text_keeps_its_letters_or_nearly(repair, text):
    assert abs(len(repair.repair(text)) - len(text)) <= text.count(" ") + 1
