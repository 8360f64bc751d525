"""The official formulas against values that the official code returned."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from o3_lightning.detector.boundary import fit_one_class
from o3_lightning.detector.module import contrastive_entropy
from o3_lightning.detector.official import (
    OfficialGate,
    apply_thresholds,
    empirical_precision,
    fit_official_gate,
    official_layer_scores,
    official_soft_weights,
    precision_root,
)

ORACLES = Path(os.environ.get("O3_ORACLES", Path(__file__).parents[1] / "oracles"))
SPLITS = ("train", "calibration", "other")


@pytest.fixture(scope="module")
def oracle():
    if not (ORACLES / "o3_detector.safetensors").exists():
        pytest.skip("no reference values of the official detector")
    tensors = load_file(ORACLES / "o3_detector.safetensors")
    return tensors, json.loads((ORACLES / "o3_detector.json").read_text())


def pooled(tensors, name):
    return tensors[name].double().mean(dim=2).transpose(0, 1)


@pytest.mark.parametrize("split", SPLITS)
def test_layer_scores_equal_official_from_hidden_states(oracle, split):
    tensors, _ = oracle
    train = pooled(tensors, "train.hidden_states")
    bank = torch.nn.functional.normalize(train, dim=-1).transpose(0, 1)
    root = precision_root(empirical_precision(train))
    scores = official_layer_scores(pooled(tensors, f"{split}.hidden_states"), train.mean(0), root, bank)
    torch.testing.assert_close(scores, tensors[f"{split}.layer_scores"].double().T, rtol=1e-4, atol=0)


@pytest.mark.parametrize("split", SPLITS)
def test_boundary_and_soft_weights_equal_official(oracle, split):
    tensors, values = oracle
    layers = {name: tensors[f"{name}.layer_scores"].double().T[:, 1:] for name in SPLITS}
    slope = fit_one_class(layers["train"], nu=0.1)
    scores = {name: rows @ slope for name, rows in layers.items()}
    torch.testing.assert_close(scores[split], tensors[f"{split}.boundary_scores"], rtol=1e-6, atol=0)
    gate = fit_official_gate(scores["train"], scores["calibration"])
    assert gate.center == pytest.approx(values["x0"], rel=1e-9)
    weights = official_soft_weights(scores[split], gate)
    torch.testing.assert_close(weights, tensors[f"{split}.soft_weights"], rtol=0, atol=1e-6)


def test_official_soft_weight_has_its_known_floor():
    gate = fit_official_gate(torch.tensor([9.0, 11.0]), torch.tensor([-1.0, 1.0]))
    far = official_soft_weights(torch.tensor([-1e6, 1e6]), gate)
    np.testing.assert_allclose(far, 1 / (1 + np.exp(2.0)), atol=1e-9)


def test_zeta_is_the_slope_of_the_soft_weight():
    gate = OfficialGate(0.0, 0.0, 1.0)
    center = official_soft_weights(torch.zeros(1), gate, zeta=4.0)
    assert center.item() == pytest.approx(torch.sigmoid(torch.tensor(2.0)).item())


def test_thresholds_are_those_of_the_evaluation_scripts():
    weights = torch.tensor([0.12, 0.2, 0.25, 0.31, 0.4, 0.41, 0.9, 0.95], dtype=torch.float64)
    assert apply_thresholds(weights, "scienceqa").tolist() == [0, 0, 0, 0.31, 0.4, 0, 0, 1]
    expected = [0, 0.4, 0.625, 0.961, 1, 1, 1, 1]
    assert apply_thresholds(weights, "tofu").tolist() == pytest.approx(expected)
    assert torch.equal(apply_thresholds(weights, "none"), weights)


def test_contrastive_entropy_equals_official(oracle):
    tensors, values = oracle
    query, key = (pooled(tensors, f"contrastive.{name}_hidden_states") for name in ("query", "key"))
    loss = contrastive_entropy(query, key, floor=1e-5)
    assert float(loss) == pytest.approx(values["contrastive_entropy_loss"], rel=1e-5)
    assert float(contrastive_entropy(query, key)) == pytest.approx(
        values["contrastive_entropy_loss"], rel=1e-4
    )
