"""Reading multiple-choice answers."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from o3_lightning.data.scienceqa import options_of
from o3_lightning.metrics.text import chosen_letter, multiple_choice, unparseable

DATA = Path(os.environ.get("O3_DATA", Path(__file__).parents[3] / "shared" / "data")) / "scienceqa"
OPTIONS = ["Rome", "a lion's tail", "Oslo"]


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("Answer: The answer is B.", "B"),
        ("The answer is B", "B"),
        ("The answer is (B).", "B"),
        ("Answer: B", "B"),
        ("the answer is: C, because it is in the north.", "C"),
        ("B", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("B. a lion's tail", "B"),
        ("A lion's tail.", "B"),
        ("oslo", "C"),
        ("The answer is B. The answer is B.", "B"),
        ("The answer is A. The answer is B.", None),
        ("The answer is A person.", None),
        ("The answer is D.", None),
        ("The answer is not known to me.", None),
        ("I like Oslo more than Rome.", None),
        ("A B C", None),
        ("", None),
        ("b7 .. ;;", None),
    ],
)
def test_an_answer_names_exactly_one_option_or_none(answer, letter):
    assert chosen_letter(answer, OPTIONS) == letter


def test_two_equal_options_cannot_be_named_by_their_text():
    assert chosen_letter("Rome", ["Rome", "rome"]) is None
    assert chosen_letter("A", ["Rome", "rome"]) == "A"


@given(st.text())
def test_any_text_gives_an_option_or_nothing(answer):
    assert chosen_letter(answer, OPTIONS) in ("A", "B", "C", None)


def test_garbage_is_neither_right_nor_wrong():
    values = multiple_choice(["B", "C", "\x00"], ["The answer is B."] * 3, [OPTIONS] * 3)
    assert values == [1.0, 0.0, None]
    assert unparseable(values) == 1
    with pytest.raises(ValueError, match="a truth that names one of 3 options"):
        multiple_choice(["B"], ["nothing"], [OPTIONS])
    with pytest.raises(ValueError, match="zip"):
        multiple_choice(["B"], ["B", "B"], [OPTIONS])


@pytest.mark.skipif(not DATA.is_dir(), reason="ScienceQA is not on this machine")
def test_every_true_answer_of_the_benchmarks_is_read():
    files = sorted(DATA.glob("*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    assert rows
    read = [chosen_letter(row["output"], options_of(row["instruction"])) for row in rows]
    assert read == [row["answer"] for row in rows]
