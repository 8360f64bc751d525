"""Memorization and membership values equal OpenUnlearning's on the same logits."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from o3_lightning.metrics.likelihood import exact_memorization, extraction_strength, probability
from o3_lightning.metrics.membership import membership_auc, min_k, min_k_plus_plus
from o3_lightning.metrics.token_scores import score_tokens

ORACLES = Path(os.environ.get("O3_ORACLES", Path(__file__).parents[1] / "oracles"))
TOLERANCE = 1e-5  # the reference values were computed in float32
METRICS = {
    "exact_memorization": exact_memorization,
    "extraction_strength": extraction_strength,
    "probability": lambda scores: probability([row.loss for row in scores]),
    "loss": lambda scores: [row.loss for row in scores],
}
SHARED = {"min_k": min_k, "min_k_plus_plus": min_k_plus_plus}


def found(name):
    if not (ORACLES / name).is_file():
        pytest.skip(f"{name} is not in the folder of reference values")
    return ORACLES / name


@pytest.fixture(scope="module")
def expected():
    return json.loads(found("memorization_and_mia.json").read_text())


@pytest.fixture(scope="module")
def scores():
    tensors = load_file(found("closer_look_losses.safetensors"))
    return {side: scores_of(tensors, side) for side in ("forget", "retain")}


def scores_of(tensors, side):
    labels = tensors[f"{side}.labels"][:, 1:]
    chosen = labels != -100
    logits = tensors[f"{side}.logits"][:, :-1][chosen]
    return score_tokens(logits, labels[chosen], chosen.sum(1).tolist(), chunk_tokens=2)


def function_of(name):
    if "@" not in name:
        return METRICS[name]
    kind, share = name.split("@")
    return lambda scores: SHARED[kind](scores, float(share))


@pytest.mark.parametrize("side", ["forget", "retain"])
def test_values_per_example(expected, scores, side):
    for name, values in expected[side].items():
        assert function_of(name)(scores[side]) == pytest.approx(values, abs=TOLERANCE), name


def test_area_under_the_curve(expected, scores):
    for name, value in expected["auc_forget_against_retain"].items():
        function = function_of(name)
        ours = membership_auc(function(scores["forget"]), function(scores["retain"]))
        assert ours == pytest.approx(value, abs=TOLERANCE), name


def test_the_reference_values_see_the_last_token_only_in_the_loss(scores):
    row = scores["forget"][0]
    assert min_k([row], 1.0) == pytest.approx([row.without_last().loss])
    assert min_k([row], 1.0) != pytest.approx([row.loss])
    assert torch.equal(row.without_last().log_probs, row.log_probs[:-1])
