"""The paper's boundary: a layer below its center lowers the score; when a promise of recall is kept."""

import pytest
import torch

from o3_lightning.detector.boundary import boundary_scores, fit_boundary
from o3_lightning.detector.calibration import RecallCheck
from o3_lightning.detector.config import DetectorConfig

ROWS, LAYERS, WIDTH = 40, 3, 6


def test_layers_below_their_center_lower_the_score():
    features = 3 + torch.randn(ROWS, LAYERS, WIDTH, generator=torch.Generator().manual_seed(1))
    state = fit_boundary(features, DetectorConfig(preset="paper", objective="none"), 0)
    steps = torch.tensor([1.0, 0.0, -1.0, -3.0], dtype=torch.float64)
    scores = boundary_scores(state.center + steps[:, None] * state.spread, state).tolist()
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1]


def test_gamma_nu_and_layers_of_the_published_boundary_are_settings():
    features = 3 + torch.randn(ROWS, LAYERS, WIDTH, generator=torch.Generator().manual_seed(1))

    def fit(**settings):
        return fit_boundary(features, DetectorConfig(preset="paper", objective="none", **settings), 0)

    last = fit(layers=1).slope
    assert last[:-1].tolist() == [0.0] * (LAYERS - 1)
    assert last[-1] > 0
    assert not torch.equal(fit(nu=0.5).slope, fit().slope)
    far = fit(gamma=0.0)  # the distance alone, which is never positive
    assert bool((far.center < 0).all())
    assert not torch.allclose(far.center, fit().center)


@pytest.mark.parametrize(("conformal", "met"), [(0.5, True), (0.499, False)])
def test_the_promise_is_kept_from_a_weight_of_one_half_on(conformal, met):
    assert RecallCheck(target=0.9, measured=0.9, conformal=conformal).met is met
