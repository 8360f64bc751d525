"""The text that has to stay is shared out fairly."""

import copy
from dataclasses import replace

import pytest
import torch

from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.models.lora import LoraFactors
from o3_lightning.release.context import halves, shares
from o3_lightning.release.neutral import Utility, neutral_rows
from o3_lightning.release.update import apply


def rows_about(kind, count):
    return tuple(QuestionAnswer(f"{kind} {number}?", "a") for number in range(count))


class Speaking:
    def __init__(self, silent_every):
        self.silent_every = silent_every

    def greedy(self, prompts):
        return ["" if place % self.silent_every == 0 else "so" for place, _ in enumerate(prompts)]


def test_rows_that_alternate_between_kinds_are_in_both_halves():
    rows = [row for two in zip(rows_about("name", 20), rows_about("fact", 20), strict=True) for row in two]
    kept, judged = halves(rows, 0)
    assert sorted(row.prompt for row in (*kept, *judged)) == sorted(row.prompt for row in rows)
    assert len(kept) == len(judged)
    for half in (kept, judged):
        assert 5 <= sum(row.prompt.startswith("name") for row in half) <= 15
    assert halves(rows, 0) == (kept, judged)
    assert halves(rows, 1) != (kept, judged)


def test_two_rows_are_one_each():
    assert [len(half) for half in halves(rows_about("fact", 2), 0)] == [1, 1]


def test_names_are_trained_on_and_general_subjects_serve_both():
    named, general = rows_about("name", 8), rows_about("fact", 8)
    kept, judged = shares(named, general)
    assert {*kept, *judged} == {*named, *general}
    assert set(named) < set(kept)
    assert (len(kept), len(judged)) == (12, 4)


@pytest.mark.parametrize(("others", "names"), [((), 0), (("Ann", "Bob"), 3)])
def test_questions_without_an_answer_mix_no_kinds(others, names):
    named, general = neutral_rows(Speaking(silent_every=4), others, 8, 0)
    assert len(named) == names
    assert len(general) == (3 if others else 6)
    assert all(any(name in row.prompt for name in others) for row in named)
    assert not any(name in row.prompt for row in general for name in ("Ann", "Bob", "{topic}"))


def test_a_model_that_says_nothing_is_told():
    with pytest.raises(InputError, match="give rows to keep"):
        neutral_rows(Speaking(silent_every=1), ("Ann",), 8, 0)


def test_the_drop_of_utility_leaves_out_rows_that_say_what_is_forgotten(tiny_base):
    base = replace(tiny_base, model=copy.deepcopy(tiny_base.model))
    rows = tuple(
        QuestionAnswer(f"Number {n}?", answer) for n, answer in enumerate(["Oslo", "a long way", "oslo!"])
    )
    utility, alone = Utility(base, rows, batch_size=2), Utility(base, rows[1:2])
    update = LoraFactors.uniform(
        {"model.layers.1.mlp.down_proj": (torch.ones(1, 64), torch.linspace(-1, 1, 32)[:, None])}
    )
    apply(base.model, update)
    everything, part = utility.drop(), utility.drop({"oslo"})
    assert part == pytest.approx(alone.drop(), rel=1e-4)
    assert abs(everything - part) > 1e-3 * part > 0
    assert utility.drop({"oslo", "a long way"}) == everything  # nothing would be left to judge by
