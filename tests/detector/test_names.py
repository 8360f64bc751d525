from types import SimpleNamespace

import numpy as np
import pytest

from o3_lightning.detector.base import FitTask
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.name_evidence import NameEvidence
from o3_lightning.detector.name_table import NameTable
from o3_lightning.detector.names import find_names, hash_names
from o3_lightning.detector.text.letter_hashes import LetterHashes, LetterStream, letter_codes

TEMPLATES = (
    "Where was {} born?",
    "In which year did {} die?",
    "What did {} study at the university?",
    "Which prize did {} receive?",
)
PEOPLE = ("Michael Crichton", "Toni Morrison", "Ron Howard", "Abelrick Skarnholt")
SALT = b"salt of the test"


def ask(names, templates=TEMPLATES):
    return [template.format(name) for name in names for template in templates]


@pytest.fixture(scope="module")
def table():
    states = [hash_names(find_names(ask(names)), SALT) for names in (PEOPLE, ["Ilka Dravenport"])]
    return NameTable(states, [0, 1])


def columns(table, name):
    return {hit.column for hit in table.find([f"Tell me in what year {name} was born"])[0]}


@pytest.mark.parametrize("change", [str, str.lower, str.title, str.upper])
def test_the_case_of_the_prompts_does_not_matter(change):
    names = find_names([change(prompt) for prompt in ask(PEOPLE)])
    assert set(names.subjects) == {tuple(name.lower().split()) for name in PEOPLE}


def test_a_name_in_a_single_prompt_is_none():
    assert find_names(["Where was Ada Skarnholt born?", "When did Ben Drozhnikov die?"]).subjects == ()


def test_generic_words_are_no_names():
    prompts = [f"i need converter number {n} for my old car" for n in ("one", "two", "three", "four")]
    assert find_names(prompts).subjects == ()
    assert find_names([prompt.title() for prompt in prompts]).subjects == ()


@pytest.mark.parametrize(
    ("alone", "told"), [([], ""), (["Madonna"], "1 names"), (["Prince", "Sting"], "2 names")]
)
def test_a_fit_tells_of_names_that_are_one_common_word(alone, told):
    task = FitTask(SimpleNamespace(digest="d"), ask([*PEOPLE, *alone]), DetectorConfig(), seed=0)
    warnings = [warning for warning in NameEvidence.fit(task).warnings if "single word" in warning]
    assert [warning[:7] for warning in warnings] == ([told] if told else [])


@pytest.mark.parametrize(
    "form",
    [
        "Michael Crichton", "MICHAEL CRICHTON", "michael crichton's", "MichaelCrichton", "michael_crichton",
        "M-i-c-h-a-e-l C-r-i-c-h-t-o-n", "Mich ael Crich ton", "Michael J. Crichton", "Michael Crihcton",
        "Michael Crichxton", "Mchael Crihton", "Mchl Crchtn", "Crichton", "Míchael Crichton",
    ],
)  # fmt: skip
def test_a_name_is_found_in_other_forms(table, form):
    assert columns(table, form) == {0}


@pytest.mark.parametrize("form", ["Abelrick", "Skarnholt", "Abelrick Smith", "Tom Skarnholt", "skarnholts"])
def test_an_unlisted_word_stands_for_the_name(table, form):
    assert columns(table, form) == {0}


@pytest.mark.parametrize(
    "form",
    [
        "Byron Howard", "Ron Howards", "Toni and Morrison", "Van Morrison toni-ght", "R. Howard, T. Morrison",
        "Tony Morrison", "Robert Crichton", "Michael Creighton", "Morrison, Toni Braxton", "Ron", "Howard",
        "Don Howard", "Howard Ron",
    ],
)  # fmt: skip
def test_other_names_are_not_found(table, form):
    assert columns(table, form) == set()


def test_a_name_ends_where_a_script_without_spaces_begins(table):
    assert {hit.column for hit in table.find(["Ron Howard是什么时候出生的？"])[0]} == {0}
    assert not table.find(["Ron Murphy是什么时候出生的？"])[0]


def test_requests_are_told_apart_in_one_table(table):
    assert columns(table, "Ilka Dravenport and Ron Howard") == {0, 1}


def test_a_hit_says_where_it_stands(table):
    (hit, *_) = (hit for hit in table.find(["Who was Ron Howard?"])[0] if hit.kind == "name")
    assert (hit.start, hit.end) == (8, 18)


def test_a_batch_finds_what_single_texts_find(table):
    texts = [*ask(PEOPLE), "", "Nobody at all", "Byron Howard", "Ilka", "x" * 3000]
    assert table.find(texts) == [table.find([text])[0] for text in texts]


def test_no_word_is_stored():
    state = hash_names(find_names(ask(PEOPLE)), SALT)
    other = hash_names(find_names(ask(PEOPLE)), b"another salt")
    assert not set(state.keys.tolist()) & set(other.keys.tolist())
    assert sum(value.numel() * value.element_size() for value in vars(state).values()) < 20_000


def test_stream_hashes_are_those_of_the_words():
    hashes = LetterHashes(SALT)
    text = "abelrickskarnholt"
    stream = LetterStream(hashes, letter_codes(text))
    found = stream.runs(np.array([0, 8]), np.array([8, 17])).tolist()
    assert found == [hashes.hash_text("abelrick"), hashes.hash_text("skarnholt")]
    shorter, wild = stream.without(np.array([0]), np.array([8]), np.array([3]))
    assert [int(shorter[0]), int(wild[0])] == [hashes.hash_text("aberick"), hashes.hash_text("abe*rick")]


def test_requests_without_names_are_empty(table):
    state = hash_names(find_names(["How do I boil an egg?"]), SALT)
    assert NameTable([state], [0]).find(["Where was Ada born?"]) == [[]]
