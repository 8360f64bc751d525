"""The three-sample audit and the unlearning depth, calibrated: the original model has 0, the retrained 1."""

import copy
from dataclasses import replace

import pytest
import torch

from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.evaluation import closeness as module
from o3_lightning.evaluation.closeness import closeness
from o3_lightning.evaluation.reference import plain_model
from o3_lightning.gating.model import GatedModel
from o3_lightning.gating.routing import EveryPrompt
from o3_lightning.models.lora import LoraFactors

ROWS = [QuestionAnswer(f"Where was author {number} born?", "In Quellorhaven") for number in range(5)]
LAYER = "model.layers.0.mlp.down_proj"


@pytest.fixture(autouse=True)
def small_gaps(monkeypatch):
    """A random model gives all answers about the same likelihood, so small differences have to count."""
    monkeypatch.setattr(module, "LEAST_GAP", 1e-4)


@pytest.fixture
def factors(tiny_base):
    """An adapter of random factors on one layer."""
    out, wide = tiny_base.model.get_submodule(LAYER).weight.shape
    draw = torch.Generator().manual_seed(0)
    pair = torch.randn(2, wide, generator=draw), torch.randn(out, 2, generator=draw)
    return LoraFactors.uniform({LAYER: pair}, scale=-30.0)  # makes the answer less likely


@pytest.fixture
def retrained(tiny_base, factors):
    """A model with that adapter in its weights."""
    model = copy.deepcopy(tiny_base.model)
    model.get_submodule(LAYER).weight.data += factors.delta(LAYER)
    return plain_model(replace(tiny_base, model=model))


def gated(base, factors):
    """A model whose gate is always open."""
    return GatedModel(base, EveryPrompt(["a"]), {"a": factors})


def test_a_model_that_computes_as_the_retrained_one_has_depth_one(tiny_base, factors, retrained):
    found = closeness(gated(tiny_base, factors), retrained, ROWS, 2)
    assert (found["rows"], found["nearer"]) == (5, 1.0)
    assert found["ks_retrained"] < 0.3 < found["ks_original"]  # rounding parts equal losses
    assert (
        found["to_retrained"] == pytest.approx(0, abs=1e-5) != pytest.approx(found["to_original"], abs=1e-3)
    )
    assert found["depth"] == pytest.approx(1, abs=1e-3)
    assert found["p_value"] == pytest.approx(1 / 32)


def test_a_model_that_forgot_nothing_has_depth_zero(tiny_base, factors, retrained):
    found = closeness(gated(tiny_base, factors.scaled(0.0)), retrained, ROWS, 2)
    assert (found["nearer"], found["ks_original"], found["p_value"]) == (0.0, 0.0, 1.0)
    assert found["to_original"] == pytest.approx(0, abs=1e-6)
    assert found["depth"] == pytest.approx(0, abs=1e-3)
    assert found["to_retrained"] > 0.01


def test_without_a_gap_there_is_no_depth(tiny_base, factors):
    assert closeness(gated(tiny_base, factors), plain_model(tiny_base), ROWS, 8)["depth"] is None
