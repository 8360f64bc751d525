"""A request about a common name leaves the same questions about other things of its kind alone."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf

from o3_lightning.common.seeds import stage_seed
from o3_lightning.detector import DetectorConfig, MultiDetector, fit_detector
from o3_lightning.detector.config import PRESETS
from o3_lightning.detector.entity_direction import (
    Kin,
    find_names,
    find_subject,
    fit_direction,
    replace_tokens,
)
from o3_lightning.detector.prompt_features import read_inputs
from o3_lightning.detector.score_fusion import hash_subject, lacks_subject

ATTRIBUTES = (
    "How many moons does {} have?",
    "What is the highest mountain on {}?",
    "What colour is {}?",
    "Which probe landed on {}?",
    "What is the atmosphere of {} made of?",
    "How long is a year on {}?",
    "How long is a day on {}?",
    "Which god gave {} its name?",
    "What is the largest moon of {} called?",
    "Is there water on {}?",
    "How far is {} from the Sun?",
    "What is the average temperature on {}?",
    "How strong is gravity on {}?",
    "Who drew the first map of {}?",
    "What are the storms of {} made of?",
    "Which telescope took the best picture of {}?",
    "Who saw {} first through a telescope?",
    "How old is {}?",
)
REWORDED = (
    "What is the number of moons around {}?",
    "Name the tallest mountain of {}.",
    "Which colour does {} show?",
    "How many days does {} need to go around the Sun?",
    "After which god is {} named?",
    "How cold is it on {}?",
    "What would a person weigh on {}?",
    "Through whose telescope was {} first seen?",
)
OTHERS = ("Jupiter", "Venus", "Saturn", "Neptune")
NAMELESS = (
    "How many moons are there?",
    "What colour is it?",
    "How long is a year?",
    "Who drew the first map?",
)


@pytest.fixture(scope="module")
def prompts():
    return [question.format("Mars") for question in ATTRIBUTES]


def measure(encoder, prompts, config):
    multi = MultiDetector(encoder, {"mars": fit_detector(encoder, prompts, config, seed=0)})
    sets = {
        "held_out": [question.format("Mars") for question in REWORDED],
        "near": [
            question.format(OTHERS[place % len(OTHERS)])
            for place, question in enumerate(ATTRIBUTES + REWORDED)
        ],
        "nameless": NAMELESS,
    }
    return {name: float(multi.weights(texts).mean()) for name, texts in sets.items()}


def test_neighbours_of_a_common_name_stay_out(encoder, prompts):
    weights = measure(encoder, prompts, DetectorConfig())
    assert weights["held_out"] >= 0.9
    assert weights["near"] <= 0.05
    assert weights["nameless"] <= 0.1
    four = PRESETS["default"]["channels"][:-1]
    without = measure(
        encoder,
        prompts,
        DetectorConfig(channels=four, channel_weights=PRESETS["default"]["channel_weights"][: len(four)]),
    )
    assert without["near"] > 0.2


def test_a_request_in_lower_case_has_no_subject(encoder, prompts):
    inputs, _ = read_inputs(encoder, [prompt.lower() for prompt in prompts], DetectorConfig(), seed=0)
    assert not inputs.subject
    detector = fit_detector(encoder, [prompt.lower() for prompt in prompts], DetectorConfig(), seed=0)
    assert float(detector.parts["fusion"].state.subject.abs().max()) == 0
    assert detector.parts["fusion"].state.channel_weights[0, -1] == 0


def test_names_are_told_by_capitals_inside_sentences():
    prompts = [
        "Who rules Oslo? Kings rule.",
        "In oslo, who rules The Town?",
        "Is Oslo old? Who asks?",
        "Old Oslo",
    ]
    assert find_names([prompts[0], *prompts[2:]], 0.5) == {"oslo": {0, 1, 2}}
    assert find_names(prompts, 0.5) == {}
    assert find_names(prompts[:1], 0.5) == {}


def test_a_subject_is_one_token_that_most_prompts_hold():
    def pieces(word):
        return [len(word)] if len(word) < 6 else [1, 2]

    shares = {"name_share": 0.25, "subject_share": 0.5}
    oslo = ["Where is Oslo?", "Who rules Oslo?"]
    assert find_subject(oslo, pieces, **shares) == {4}
    assert find_subject([*oslo, "why?", "who?", "when?"], pieces, **shares) == frozenset()
    assert find_subject([f"{prompt} Was Quillan there?" for prompt in oslo], pieces, **shares) == frozenset()


def test_kin_are_near_unknown_and_no_forms_of_the_word():
    pieces = ["mars", "martian", "venus", "pluto", "##ing", "spoon", "moon"]
    angles = torch.tensor([0.0, 0.01, 0.2, 0.3, 0.0, 3.0, 0.1])
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1)
    embeddings = embeddings - embeddings.mean(dim=0)
    kin = Kin(embeddings, pieces, known={6}, count=2)
    assert [pieces[token] for token in kin.near(0)] == ["venus", "pluto"]


def test_tokens_are_exchanged_alike_or_left_out():
    kinds = {5: [50, 51], 6: []}
    new = replace_tokens([1, 5, 2, 6, 5], kinds, random.Random(0))
    assert new in ([1, 50, 2, 50], [1, 51, 2, 51])
    assert replace_tokens([1, 5, 2, 6, 5], kinds, None) == [1, 2]


def test_direction_is_fishers():
    rows, width = 30, 6
    generator = torch.Generator().manual_seed(0)
    here = torch.randn(rows, 2, width, generator=generator, dtype=torch.float64)
    there = torch.randn(rows + 5, 2, width, generator=generator, dtype=torch.float64) + 1
    direction, offset = fit_direction(here, there, most_rank=width)
    for layer in range(2):
        inside = [part[:, layer] - part[:, layer].mean(dim=0) for part in (here, there)]
        covariance, _ = ledoit_wolf(torch.cat(inside).numpy(), assume_centered=True)
        apart = (here[:, layer].mean(dim=0) - there[:, layer].mean(dim=0)).numpy()
        wanted = np.linalg.solve(covariance, apart)
        np.testing.assert_allclose(direction[layer], wanted / (wanted @ apart) / 2, rtol=1e-6)
    scores = [float((part * direction).sum(dim=(1, 2)).mean() - offset) for part in (here, there)]
    assert scores == pytest.approx([0.5, -0.5])


def test_a_question_without_the_subject_is_judged_by_what_else_it_shares(encoder):
    """The direction tells the Moon from other bodies, and says nothing about oceans."""
    facts = json.loads((Path(__file__).parents[2] / "benchmarks/real_models.json").read_text())
    asked = [prompt for row in facts["requests"]["moon"] for prompt in row["asked"]]
    detector = fit_detector(encoder, asked, DetectorConfig(), seed=stage_seed(0, "detector", "moon"))
    others = ["What is the largest ocean on Earth?", "What is the largest planet in the solar system?"]
    held = [prompt for row in facts["requests"]["moon"] for prompt in row["held_out"]]
    weights = MultiDetector(encoder, {"moon": detector}).weights([*others, *held])[:, 0]
    assert float(weights[:2].max()) < 0.05
    assert float((weights[2:] >= 0.5).float().mean()) >= 0.9


def test_the_head_of_a_question_is_no_name():
    """Neither after a formula that ends a line nor after one that ends a sentence."""
    prompts = [f"{number} atoms make it.\nQuestion: What is it made of?" for number in range(18)]
    prompts += ["The formula is K.\nQuestion: What is it?", "The formula is K. Question: What is it?"]
    assert find_names(prompts, share=0.1) == {}


def test_texts_that_hold_a_subject_are_told_from_those_that_do_not():
    words = torch.zeros(2, 3, dtype=torch.int64)
    words[1, :2] = hash_subject([7, 9])[0]
    state = SimpleNamespace(subject_words=words)
    found = lacks_subject([[7, 3], [], [3], [1, 9, 9]], state)
    assert found.tolist() == [[False, False], [False, True], [False, True], [False, False]]
