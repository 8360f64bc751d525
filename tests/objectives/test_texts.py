"""What objectives put in place of the true answers, and what they say when they cannot."""

from collections import Counter

import pytest

from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.objectives.config import ForgetObjective, ObjectiveConfig, RetainObjective
from o3_lightning.objectives.targets import (
    build_texts,
    check_needs,
    draw_refusals,
    draw_wrong_answers,
    load_refusals,
)

ROWS = [
    QuestionAnswer(f"Question {i}?", "Answer: B.", perturbed_answers=("A", "C", "Answer: B."))
    for i in range(400)
]


def test_wrong_answers_are_wrong_existing_and_evenly_drawn():
    drawn = Counter(draw_wrong_answers(ROWS, 0))
    assert set(drawn) == {"A", "C"}
    assert min(drawn.values()) > 150


def test_draws_depend_on_seed_and_row_alone():
    assert draw_wrong_answers(ROWS, 3) == draw_wrong_answers(ROWS, 3)
    assert draw_wrong_answers(ROWS, 3) != draw_wrong_answers(ROWS, 4)
    assert draw_wrong_answers(ROWS, 3)[:10] == draw_wrong_answers(ROWS[:10], 3)


def test_official_labels_come_from_five_letters_the_true_one_included():
    drawn = Counter(draw_wrong_answers(ROWS, 0, official=True))
    assert set(drawn) == {f"Answer: {letter}." for letter in "ABCDE"}


def test_refusals_are_polite_and_many_and_may_come_from_a_file(tmp_path):
    assert len(set(load_refusals())) >= 20
    path = tmp_path / "refusals.txt"
    path.write_text("No idea.\n\n  Pass. \n")
    assert load_refusals(path) == ("No idea.", "Pass.")
    assert set(draw_refusals(ROWS, load_refusals(path), 0)) == {"No idea.", "Pass."}


def test_a_request_may_use_a_few_refusals():
    few = set(draw_refusals(ROWS, load_refusals(), 0, count=3))
    assert len(few) == 3
    assert few < set(load_refusals())


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\xff"])
def test_a_file_without_refusals_is_refused(tmp_path, content):
    path = tmp_path / "refusals.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="refusals"):
        load_refusals(path)


@pytest.mark.parametrize("name", ["random_labels", "llmu"])
def test_missing_wrong_answers_are_told_with_the_row(name):
    rows = [*ROWS[:2], QuestionAnswer("Who?", "Ann", perturbed_answers=("Ann",))]
    with pytest.raises(InputError, match="row 3"):
        check_needs(ObjectiveConfig(ForgetObjective(name)), rows, None)


def test_official_labels_need_a_letter():
    objective = ObjectiveConfig(ForgetObjective("random_labels", official_labels=True))
    with pytest.raises(InputError, match="letter"):
        check_needs(objective, [QuestionAnswer("Who?", "nobody")], None)


@pytest.mark.parametrize("name", ["gd", "kl", "ap", "rmu"])
def test_missing_retained_data_is_told(name):
    objective = ObjectiveConfig(retain=RetainObjective(name))
    for retain in (None, []):
        with pytest.raises(InputError, match="needs retained data"):
            check_needs(objective, ROWS, retain)
    check_needs(objective, ROWS, ROWS)


def test_only_the_views_that_are_read_are_built():
    texts = build_texts(ObjectiveConfig(ForgetObjective("dpo")), ROWS, 0)
    assert set(texts) == {"answer", "refusal"}
    assert set(build_texts(ObjectiveConfig(retain=RetainObjective("ap")), ROWS, 0, retained=True)) == {
        "retain",
        "retain_refusal",
    }
    assert build_texts(ObjectiveConfig(), ROWS, 0, retained=True) == {}


@pytest.mark.parametrize(
    "values",
    [{"name": "magic"}, {"coefficient": 0.0}, {"coefficient": float("nan")},
     {"name": "wga", "parameters": {"beta": -1.0}}, {"name": "npo", "parameters": {"beta": 0.0}},
     {"name": "npo", "parameters": {"beta": float("inf")}}, {"name": "me", "parameters": {"direction": "up"}},
     {"name": "rmu", "parameters": {"layer": -1}}, {"name": "rmu", "parameters": {"steering": 0.0}},
     {"name": "npo", "parameters": {"beta": True}}, {"name": "ga", "parameters": {"beta": 1.0}}],
)  # fmt: skip
def test_bad_values_are_refused_with_their_field(values):
    with pytest.raises(InputError, match=r"objective\.forget\." + list(values)[-1]):
        ForgetObjective(**values)


def test_published_values_are_filled_in():
    assert ForgetObjective("npo").settings().beta == 0.1
    assert ForgetObjective("npo", parameters={"beta": 0.5}).settings().beta == 0.5
    assert RetainObjective("ap").settings().beta == 0.1
    assert (ForgetObjective("satimp").settings().beta, ForgetObjective("satimp").settings().second_beta) == (
        5,
        1,
    )
