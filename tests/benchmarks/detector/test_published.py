"""The detectors that O3 compares its own with, against scikit-learn and closed forms."""

import numpy as np
import pytest
import torch
from sklearn.covariance import EmpiricalCovariance
from sklearn.svm import OneClassSVM

from benchmarks.detector.published import rank_weighted_depth
from o3_lightning.common.errors import InputError
from o3_lightning.detector import Detector, DetectorConfig, MultiDetector, fit_detector

FORGET = [
    f"In which {word} did Torvald Ekmansgard win a prize?"
    for word in ("year", "city", "month", "town", "land")
]
ASKED = ["Which prize did Torvald Ekmansgard win?", "Who won a prize in that year?", "Boil two eggs."]


def scored(encoder, preset, folder):
    """Returns the scores and weights of ASKED by a detector that was saved and loaded."""
    fit_detector(encoder, FORGET, DetectorConfig(preset=preset), seed=0).save(folder)
    multi = MultiDetector(encoder, {"people": Detector.load(folder)})
    return multi.scores(ASKED)[:, 0], multi.weights(ASKED)[:, 0], multi.weights(FORGET)[:, 0]


def test_mdf_is_a_linear_one_class_svm_on_mahalanobis_distances(remembering_encoder, tmp_path):
    scores, weights, own = scored(remembering_encoder, "mdf", tmp_path)
    known = remembering_encoder.encode(FORGET)[:, 1:].double().numpy()
    asked = remembering_encoder.encode(ASKED)[:, 1:].double().numpy()
    distances = [
        np.stack(
            [EmpiricalCovariance().fit(known[:, i]).mahalanobis(rows[:, i]) for i in range(known.shape[1])], 1
        )
        for rows in (known, asked)
    ]
    wanted = -OneClassSVM(kernel="linear", nu=0.1).fit(distances[0]).score_samples(distances[1])
    assert np.allclose(scores, wanted, rtol=1e-3)
    assert own.unique().tolist() == [1]  # M <= D: all forget prompts are equally far
    assert set(weights.tolist()) <= {0, 1}


def test_agg_is_the_depth_of_the_cosines_of_all_layers(remembering_encoder, tmp_path):
    scores, weights, _ = scored(remembering_encoder, "agg", tmp_path)
    assert scores[0] > scores[2]
    assert ((scores >= 0) & (scores <= 0.5)).all()
    assert weights[2] == 0
    with pytest.raises(InputError, match="at least two different forget prompts, got 1"):
        fit_detector(remembering_encoder, FORGET[:1], DetectorConfig(preset="agg"), seed=0)


def test_the_depth_in_one_dimension_is_the_smaller_tail():
    references = torch.arange(10.0)
    directions = torch.tensor([[1.0], [-1.0]])
    projections = (directions * references).sort(dim=1).values
    depth = rank_weighted_depth(torch.tensor([[-1.0], [4.5], [1.5], [20.0]]), directions, projections)
    assert torch.allclose(depth, torch.tensor([0.0, 0.5, 0.2, 0.0]))
