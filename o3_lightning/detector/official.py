"""The detector of the official code, family "official", with its formulas and numbers: a baseline.

Shape letters: N rows, L layers, D width, M bank rows.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from o3_kernels import LayerScores, layer_scores
from o3_lightning.detector.base import DETECTORS
from o3_lightning.detector.boundary import MAHALANOBIS_WEIGHT, fit_one_class, warn_if_small
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.constants import USED_FRACTION
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.feature_evidence import Details, FeatureEvidence
from o3_lightning.detector.prompt_features import PromptInputs

SMALLEST_DEVIATION = 1e-6  # of the mean score; far above the rounding of float64
GAMMA, ZETA = 1000.0, 10.0  # of the paper, section 4.1
SOFT_WEIGHT_OFFSET = 2.0  # official `run_ood.py`; leaves a floor of sigmoid(-2) = 0.119


class OfficialGate(NamedTuple):
    """Two Gaussians of one width over boundary scores.

    Args:
        used: mean over the prompts the detector was fitted on.
        rest: mean over the prompts held back.
        deviation: standard deviation of the prompts held back, taken for both.
    """

    used: float
    rest: float
    deviation: float

    @property
    def center(self) -> float:
        """Where the soft weight is highest: halfway between the two means."""
        return (self.used + self.rest) / 2


@dataclass(frozen=True)
class OfficialState:
    """Layer statistics, boundary and gate of one request, float64.

    Args:
        mean: [L, D].
        whitening: root of the full precision [L, D, D].
        bank: unit rows [L, M, D].
        slope: of the linear boundary, without layer 0 [L - 1].
        gate: the fields of `OfficialGate` [3].
    """

    mean: Tensor
    whitening: Tensor
    bank: Tensor
    slope: Tensor
    gate: Tensor


@DETECTORS.register("official")
class OfficialEvidence(FeatureEvidence):
    """The official layer scores under a linear one-class SVM, with the official soft weight."""

    state_class = OfficialState

    @classmethod
    def fit_state(
        cls, encoder: Encoder, inputs: PromptInputs, config: DetectorConfig, seed: int
    ) -> tuple[OfficialState, dict[str, Any], list[str]]:
        """Fits the official statistics to the first prompts and the gate to the rest."""
        N, rows = len(inputs), inputs.features.double()
        used = max(1, min(N - 1, int(USED_FRACTION * N))) if N > 1 else 1
        mean, bank = rows[:used].mean(dim=0), F.normalize(rows[:used], dim=-1).transpose(0, 1).contiguous()
        root = precision_root(empirical_precision(rows[:used]))
        vectors = official_layer_scores(rows, mean, root, bank, config.gamma)[:, 1:]
        slope = fit_one_class(vectors[:used], nu=config.nu, layers=config.layers)
        scores = vectors @ slope
        gate = fit_official_gate(scores[:used], scores[used:] if N > 1 else scores)
        place = torch.tensor(gate, dtype=torch.float64)
        return OfficialState(mean, root, bank, slope, place), {}, warn_if_small(inputs)

    @property
    def gate(self) -> OfficialGate:
        """The two Gaussians behind the soft weight."""
        return OfficialGate(*self.state.gate.tolist())

    def score_features(self, inputs: PromptInputs, information: Tensor) -> Tensor:
        """Returns minus the distance of the boundary score from the center of the gate [S, 1]."""
        mean, root, bank, slope, _ = vars(self.state).values()
        slope = F.pad(slope, (1, 0))  # without layer 0
        scores = score_official(inputs.features, mean, root, bank, slope, self.config.gamma)
        return -(scores.aggregate.T - self.gate.center).abs()

    def explain_features(self, inputs: PromptInputs, information: Tensor) -> list[Details]:
        """Returns the raw layer scores."""
        mean, root, bank, *_ = vars(self.state).values()
        vectors = official_layer_scores(inputs.features, mean, root, bank, self.config.gamma)
        return [[{"channels": {}, "layers": row} for row in vectors.tolist()]]

    def weight(self, scores: Tensor) -> Tensor:
        """Returns the official soft weights, in [0.119, 1], or what the thresholds make of them."""
        soft = official_soft_weights(scores + self.gate.center, self.gate, self.config.zeta)
        return apply_thresholds(soft, self.config.thresholds)


def apply_thresholds(weights: Tensor, benchmark: str) -> Tensor:
    """Returns weights as an evaluation script of the official code changes them; not monotone for ScienceQA.

    Source:
        Official `eval_o3.py` for ScienceQA, which sets 1.2 where ours sets 1, and the script for TOFU.
    """
    if benchmark == "scienceqa":
        kept = torch.where((weights > 0.3) & (weights <= 0.4), weights, 0.0)
        return torch.where(weights > 0.9, 1.0, kept)
    if benchmark == "tofu":
        ramp = torch.where(weights >= 0.2, 10 * weights.square(), 0.0).clamp_max(1)
        return torch.where(weights >= 0.32, 1.0, ramp)
    return weights


def empirical_precision(features: Tensor) -> Tensor:
    """Returns the pseudo-inverse of the empirical covariance at each layer [L, D, D], float64.

    Args:
        features: [N, L, D]; with N <= D the covariance is singular: deviations outside its span cost nothing.
    """
    from sklearn.covariance import EmpiricalCovariance

    rows = features.double().numpy()
    layers = [EmpiricalCovariance().fit(rows[:, layer]).precision_ for layer in range(rows.shape[1])]
    return torch.from_numpy(np.stack(layers))


def precision_root(precision: Tensor) -> Tensor:
    """Returns U with U^T U = P of symmetric matrices P that are not negative [L, D, D], float64."""
    values, axes = torch.linalg.eigh(precision.double())
    root: Tensor = (axes * values.clamp_min(0).sqrt()[:, None]).transpose(1, 2)
    return root


def score_official(
    features: Tensor, mean: Tensor, root: Tensor, bank: Tensor, slope: Tensor, gamma: float
) -> LayerScores:
    """Returns distance and cosine of each layer, and the sum over layers of slope [L] * official score."""
    weights = slope.double()[None]
    return layer_scores(
        features.double(),
        mean.double()[None],
        0 * weights,
        root.double()[None],
        bank.double()[None],
        None,
        MAHALANOBIS_WEIGHT * weights,
        -gamma * weights,
        whitening_sign=1,
    )


def official_layer_scores(
    features: Tensor, mean: Tensor, root: Tensor, bank: Tensor, gamma: float = GAMMA
) -> Tensor:
    """Returns -gamma * max cosine - 0.5 * squared Mahalanobis distance at each layer.

    The first term falls and the second rises as a prompt comes closer, so the sum has no fixed direction.

    Args:
        features: [N, L, D].
        mean: [L, D].
        root: of the precision, from `precision_root` [L, D, D].
        bank: unit rows [L, M, D].
        gamma: weight of the cosine, at least 0.

    Returns:
        Scores [N, L], float64.

    Source:
        Official `ood_model_selector.py`; equations 8 and 9 of the paper have one sign.
    """
    scores = score_official(features, mean, root, bank, torch.ones(len(mean)), gamma)
    return (MAHALANOBIS_WEIGHT * scores.mahalanobis - gamma * scores.cosine)[0]


def fit_official_gate(used: Tensor, rest: Tensor) -> OfficialGate:
    """Fits the two Gaussians to boundary scores of prompts used [N] and held back [N].

    Where those held back all score alike, the official deviation of 0 makes every weight NaN; ours stops
    short of it.
    """
    place = float(rest.mean())
    narrowest = SMALLEST_DEVIATION * max(abs(place), 1.0)
    return OfficialGate(float(used.mean()), place, max(float(rest.std(correction=0)), narrowest))


def official_soft_weights(scores: Tensor, gate: OfficialGate, zeta: float = ZETA) -> Tensor:
    """Returns sigmoid(zeta c - 2), c = 1 - |F(s) - F(2 x0 - s)|, F the mean of both Gaussian distributions.

    Args:
        scores: boundary scores of any shape.
        gate: from `fit_official_gate`.
        zeta: slope, at least 0.

    Returns:
        Weights in [0.119, 1], float64; symmetric about `gate.center`, so not monotone in the boundary score.

    Source:
        Official `run_ood.py`; `apply_thresholds` has those of the evaluation scripts.
    """
    from scipy.stats import norm

    values = scores.double().numpy()
    both = np.stack([values, 2 * gate.center - values])
    here, mirrored = sum(norm.cdf(both, mean, gate.deviation) for mean in (gate.used, gate.rest)) / 2
    return torch.sigmoid(zeta * torch.from_numpy(1 - np.abs(here - mirrored)) - SOFT_WEIGHT_OFFSET)
