"""Boundaries of layer scores: which side falls, what a layer counts, against scikit-learn's covariance."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf

from o3_lightning.detector.boundary import (
    SMALLEST_SPREAD,
    fit_boundary_state,
    fit_layers,
    judge,
    layer_vectors,
    weigh_layers,
)
from o3_lightning.detector.calibration import RecallCheck, cross_fit
from o3_lightning.detector.config import DetectorConfig

CONFIG = DetectorConfig(preset="paper", objective="none", boundary="gaussian")
ROWS, LAYERS, WIDTH = 40, 3, 6


def fitted(config=CONFIG):
    generator = torch.Generator().manual_seed(1)
    features = 3 + torch.randn(ROWS, LAYERS, WIDTH, generator=generator)
    return features, fit_boundary_state(features, config, 0)


@pytest.mark.parametrize("boundary", ["gaussian", "rbf"])
def test_only_layers_below_their_center_lower_the_score(boundary):
    config = replace(CONFIG, boundary=boundary)
    _, state = fitted(config)
    steps = torch.tensor([3.0, 1.0, 0.0, -1.0, -3.0], dtype=torch.float64)
    scores = judge(state.center + steps[:, None] * state.spread, state, config).tolist()
    assert scores[0] == scores[1] == scores[2]
    assert scores[2] > scores[3] > scores[4]


def test_the_gaussian_measures_shortfalls_with_their_shrunk_covariance():
    features, state = fitted()
    vectors = cross_fit(
        ROWS,
        CONFIG.folds,
        0,
        lambda used, scored: layer_vectors(features[scored], fit_layers(features[used], CONFIG, 0), CONFIG),
    )
    z = ((vectors - vectors.mean(0)) / vectors.std(0, correction=0)).numpy()
    covariance, _ = ledoit_wolf(np.minimum(z, 0), assume_centered=True)
    expected = np.linalg.inv(covariance + SMALLEST_SPREAD * np.eye(LAYERS))
    np.testing.assert_allclose(state.support.numpy(), expected, rtol=1e-5)


def test_a_steady_layer_counts_more_than_one_that_varies():
    config = replace(CONFIG, layer_weights="fitted")
    steady, varied = torch.tensor([9.0, 10.0, 11.0]), torch.tensor([0.0, 10.0, 20.0])
    weights = weigh_layers(torch.stack([steady, varied], dim=1).double(), config)
    assert weights.tolist() == pytest.approx([10 / 11, 1 / 11])  # one deviation is ten times the other


@pytest.mark.parametrize(("conformal", "met"), [(0.5, True), (0.499, False)])
def test_the_promise_is_kept_from_a_weight_of_one_half_on(conformal, met):
    assert RecallCheck(target=0.9, measured=0.9, lower=0.8, conformal=conformal).met is met
