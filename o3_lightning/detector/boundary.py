"""The paper's detector, family "layers": one score per layer under a linear one-class SVM.

Every term is oriented so that closer prompts score higher. It is a baseline for the default detector.
Shape letters: N rows, L layers, D width, R rank, M bank rows, S support vectors.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from o3_kernels import LayerScores, layer_scores
from o3_lightning.detector.base import DETECTORS
from o3_lightning.detector.calibration import cross_fit, tail_weights
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.constants import CENTROIDS, FOLDS, MOST_RANK, ROWS_PER_CENTROID, SMALLEST_REQUEST
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.feature_evidence import Details, FeatureEvidence
from o3_lightning.detector.layer_statistics import fit_precision, spherical_centroids
from o3_lightning.detector.prompt_features import PromptInputs
from o3_lightning.detector.score_fusion import pad_stack

MAHALANOBIS_WEIGHT = -0.5  # of the squared distance; half of it is the Gaussian log density
# standard deviations that keep layer scores above 0, so that a linear boundary has one sign
POSITIVE_SHIFT = 8.0
SMALLEST_SPREAD = 1e-6
# of the mean: far above float32 rounding, far below the spread of two prompts
SMALLEST_SPREAD_FRACTION = 1e-4


@dataclass(frozen=True)
class BoundaryState:
    """Layer statistics and boundary of one request, float64.

    Args:
        mean: [L, D].
        scale: 1 / s of the precision [L].
        whitening: U of the precision [L, R, D].
        bank: unit rows [L, M, D].
        center: cross-fitted mean of each layer score [L].
        spread: its standard deviation [L].
        slope: non-negative weight of each standardised layer score [L].
        gate: mean and standard deviation of the cross-fitted boundary score [2].
    """

    mean: Tensor
    scale: Tensor
    whitening: Tensor
    bank: Tensor
    center: Tensor
    spread: Tensor
    slope: Tensor
    gate: Tensor


@DETECTORS.register("layers")
class BoundaryEvidence(FeatureEvidence):
    """Layer scores of one request under a linear boundary, with the weights of the default detector."""

    state_class = BoundaryState

    @classmethod
    def fit_state(
        cls, encoder: Encoder, inputs: PromptInputs, config: DetectorConfig, seed: int
    ) -> tuple[BoundaryState, dict[str, Any], list[str]]:
        """Returns the state fitted to every layer, and a warning for a small request."""
        return fit_boundary(inputs.features, config, seed), {}, warn_if_small(inputs)

    def score_features(self, inputs: PromptInputs, information: Tensor) -> Tensor:
        """Returns boundary scores [S, 1], standardised by the cross-fitted forget prompts."""
        state: BoundaryState = self.state
        constant = (state.slope * (POSITIVE_SHIFT - state.center / state.spread)).sum()
        scores = score_layers(inputs.features, state, self.config.gamma).aggregate.T + constant
        return (scores - state.gate[0]) / state.gate[1]

    def explain_features(self, inputs: PromptInputs, information: Tensor) -> list[Details]:
        """Returns the standardised layer scores."""
        vectors = layer_vectors(inputs.features, self.state, self.config.gamma)
        z = (vectors - self.state.center) / self.state.spread
        return [[{"channels": {}, "layers": row} for row in z.tolist()]]

    def weight(self, scores: Tensor) -> Tensor:
        """Returns the weights of standardised scores by `tail_weights`."""
        return tail_weights(scores, self.config.tail_quantile)


def warn_if_small(inputs: PromptInputs) -> list[str]:
    """Returns a warning where a request has too few prompts for a one-class SVM."""
    if len(inputs) >= SMALLEST_REQUEST:
        return []
    return [f"{len(inputs)} distinct prompts are too few for a one-class boundary; weights are rough"]


def fit_one_class(vectors: Tensor, *, nu: float, layers: int = 0) -> Tensor:
    """Returns the slope [L] of scikit-learn's linear one-class SVM, float64; `score_samples` is x @ slope.

    Args:
        vectors: [N, L].
        nu: fraction of outliers, in (0, 1).
        layers: how many of the last layers have a slope other than 0; 0 for all.
    """
    from sklearn.svm import OneClassSVM

    used = vectors[:, -layers:].double()
    machine = OneClassSVM(nu=nu, kernel="linear", gamma="scale").fit(used.numpy())
    slope = torch.from_numpy(machine.dual_coef_[0].copy()) @ torch.from_numpy(machine.support_vectors_.copy())
    return F.pad(slope, (vectors.shape[1] - used.shape[1], 0))


def fit_boundary(features: Tensor, config: DetectorConfig, seed: int) -> BoundaryState:
    """Fits statistics, boundary and gate of one request from features [N, L, D], every layer."""
    state = fit_layers(features, config, seed)
    vectors = cross_fit(
        len(features),
        FOLDS,
        seed,
        lambda fitted, scored: layer_vectors(
            features[scored], fit_layers(features[fitted], config, seed), config.gamma
        ),
    )
    center, spread = center_and_spread(vectors)
    shifted = POSITIVE_SHIFT + (vectors - center) / spread
    slope = fit_one_class(shifted, nu=config.nu, layers=config.layers).clamp_min(0) / shifted.shape[1]
    state = replace(state, center=center, spread=spread, slope=slope)
    return replace(state, gate=torch.stack(center_and_spread(boundary_scores(vectors, state))))


def center_and_spread(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation over the first dimension; that of equal prompts is not quite 0."""
    center = scores.mean(dim=0)
    narrowest = (SMALLEST_SPREAD_FRACTION * center.abs()).clamp_min(SMALLEST_SPREAD)
    return center, torch.maximum(scores.std(dim=0, correction=0), narrowest)


def fit_layers(features: Tensor, config: DetectorConfig, seed: int) -> BoundaryState:
    """Fits mean, shrunk precision and bank at every layer."""
    rows = features.double()
    layers = F.normalize(rows, dim=-1).unbind(dim=1)
    count = max(1, min(CENTROIDS, len(rows) // ROWS_PER_CENTROID))
    mean = rows.mean(dim=0)
    fitted = [fit_precision(centred, MOST_RANK) for centred in (rows - mean).unbind(dim=1)]
    banks = [unit if config.keeps_examples else spherical_centroids(unit, count, seed) for unit in layers]
    one = torch.ones(len(layers), dtype=torch.float64)
    return BoundaryState(
        mean,
        torch.stack([scale for scale, _ in fitted]).double(),
        pad_stack([whitening for _, whitening in fitted]),
        pad_stack(banks, repeat=True),
        0 * one,
        one,
        one,
        torch.tensor([0.0, 1.0], dtype=torch.float64),
    )


def score_layers(features: Tensor, state: BoundaryState, gamma: float) -> LayerScores:
    """Returns distance and cosine of each layer, and the sum over layers of slope * layer score / spread."""
    weights = (state.slope / state.spread)[None]
    return layer_scores(
        features.double(),
        state.mean[None],
        state.scale[None],
        state.whitening[None],
        state.bank[None],
        None,
        MAHALANOBIS_WEIGHT * weights,
        gamma * weights,
    )


def layer_vectors(features: Tensor, state: BoundaryState, gamma: float) -> Tensor:
    """Returns gamma * cosine - 0.5 * squared distance at each layer [N, L], higher = closer."""
    scores = score_layers(features, state, gamma)
    return (gamma * scores.cosine + MAHALANOBIS_WEIGHT * scores.mahalanobis)[0]


def boundary_scores(vectors: Tensor, state: BoundaryState) -> Tensor:
    """Returns the boundary scores [N] of layer-score vectors [N, L]."""
    scores: Tensor = (POSITIVE_SHIFT + (vectors - state.center) / state.spread) @ state.slope
    return scores
