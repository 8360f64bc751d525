"""The published detector: one score a layer, and a one-class boundary over the vector of layer scores.

Family "layers" is the paper's method with every term pointing the same way; family "official" gives the
released code's numbers. Both exist to be measured beside the default, one request at a time.
Shape letters: N rows, L layers, D width, R rank, M bank rows, S support vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from sklearn.covariance import ledoit_wolf
from sklearn.svm import OneClassSVM
from torch import Tensor
from torch.nn import functional as F

from o3_kernels import layer_scores
from o3_lightning.detector.calibration import cross_fit, tail_weights
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.layer_statistics import fit_precision, spherical_centroids
from o3_lightning.detector.official import (
    MAHALANOBIS_WEIGHT,
    OfficialGate,
    empirical_precision,
    fit_official_gate,
    official_layer_scores,
    official_soft_weights,
    precision_root,
)
from o3_lightning.detector.score_fusion import pad_stack

__all__ = [
    "BoundaryState",
    "boundary_layers",
    "boundary_scores",
    "boundary_weights",
    "fit_boundary_state",
    "fit_one_class",
]

# standard deviations that keep layer scores above 0, so that a linear boundary has one sign
POSITIVE_SHIFT = 8.0
SMALLEST_SPREAD = 1e-6
# of the mean: far above float32 rounding, far below the spread of two prompts
SMALLEST_SPREAD_FRACTION = 1e-4


@dataclass(frozen=True)
class BoundaryState:
    """What the layer scores and the boundary of one request need; float64 for the official family.

    Args:
        mean: [L, D].
        scale: 1 / s of the precision [L]; unused by the official family.
        whitening: [L, R, D]; the root of the full precision [L, D, D] in the official family.
        bank: unit rows [L, M, D].
        center: cross-fitted mean of each layer score [L].
        spread: its standard deviation [L].
        layer_weights: [L].
        support: support vectors, one row of ones for linear boundaries [S, L].
        coefficients: [S], or the weights of a linear boundary [L].
        width: gamma of the RBF kernel [1].
        gate: score mean and deviation [2], or the official gate [3].
    """

    mean: Tensor
    scale: Tensor
    whitening: Tensor
    bank: Tensor
    center: Tensor
    spread: Tensor
    layer_weights: Tensor
    support: Tensor
    coefficients: Tensor
    width: Tensor
    gate: Tensor


def fit_one_class(vectors: Tensor, *, kernel: str, nu: float) -> tuple[Tensor, Tensor, Tensor]:
    """Fits scikit-learn's one-class SVM.

    Args:
        vectors: [N, L].
        kernel: "linear" or "rbf".
        nu: share of outliers, in (0, 1).

    Returns:
        Support vectors [S, L], coefficients [S] and gamma [1], float64; the boundary score is the sum
        over the support of coefficient times kernel, scikit-learn's `score_samples`.
    """
    machine = OneClassSVM(nu=nu, kernel=kernel, gamma="scale").fit(vectors.double().numpy())
    support = torch.from_numpy(machine.support_vectors_.copy())
    return (
        support,
        torch.from_numpy(machine.dual_coef_[0].copy()),
        torch.tensor([float(machine._gamma)]).double(),
    )


def fit_boundary_state(features: Tensor, config: DetectorConfig, seed: int) -> BoundaryState:
    """Fits statistics, boundary and gate of one request from features [N, L, D], every layer."""
    if config.family == "official":
        return fit_official(features, config)
    rows = len(features)
    state = fit_layers(features, config, seed)
    vectors = cross_fit(
        rows,
        config.folds,
        seed,
        lambda fitted, scored: layer_vectors(
            features[scored], fit_layers(features[fitted], config, seed), config
        ),
    )
    center, spread = center_and_spread(vectors)
    state = replace(state, center=center, spread=spread)
    state = replace(state, layer_weights=weigh_layers(vectors, config))
    shifted = POSITIVE_SHIFT + (vectors - state.center) / spread
    if config.boundary in ("linear", "rbf"):
        support, coefficients, width = fit_one_class(shifted, kernel=config.boundary, nu=config.nu)
        state = replace(state, support=support, coefficients=coefficients, width=width)
    elif config.boundary == "gaussian":
        covariance, _ = ledoit_wolf(((shifted - POSITIVE_SHIFT).clamp_max(0)).numpy(), assume_centered=True)
        precision = torch.linalg.inv(
            torch.from_numpy(covariance) + SMALLEST_SPREAD * torch.eye(len(covariance))
        )
        state = replace(state, support=precision)
    scores = judge(vectors, state, config)
    return replace(state, gate=torch.stack(center_and_spread(scores)))


def center_and_spread(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation over the first dimension; that of equal prompts is not quite 0."""
    center = scores.mean(dim=0)
    narrowest = (SMALLEST_SPREAD_FRACTION * center.abs()).clamp_min(SMALLEST_SPREAD)
    return center, torch.maximum(scores.std(dim=0, correction=0), narrowest)


def fit_layers(features: Tensor, config: DetectorConfig, seed: int) -> BoundaryState:
    """Fits mean, shrunk precision and bank at every layer."""
    rows = features.double()
    unit = F.normalize(rows, dim=-1)
    count = max(1, min(config.centroids, len(rows) // config.rows_per_centroid))
    mean = rows.mean(dim=0)
    fitted = [fit_precision(rows[:, layer] - mean[layer], config.most_rank) for layer in range(rows.shape[1])]
    banks = [
        unit[:, layer] if config.bank == "examples" else spherical_centroids(unit[:, layer], count, seed)
        for layer in range(rows.shape[1])
    ]
    L = rows.shape[1]
    one = torch.ones(L, dtype=torch.float64)
    return BoundaryState(
        mean,
        torch.stack([scale for scale, _ in fitted]).double(),
        pad_stack([whitening for _, whitening in fitted]),
        pad_stack(banks, repeat=True),
        0 * one,
        one,
        one / L,
        torch.ones(1, L, dtype=torch.float64),
        one[:1],
        one[:1],
        torch.tensor([0.0, 1.0], dtype=torch.float64),
    )


def layer_vectors(features: Tensor, state: BoundaryState, config: DetectorConfig) -> Tensor:
    """Returns gamma * cosine - 0.5 * squared distance at each layer [N, L], higher = closer."""
    zero = torch.zeros_like(state.scale)[None]
    scores = layer_scores(
        features.double(),
        state.mean[None],
        state.scale[None],
        state.whitening[None],
        state.bank[None],
        None,
        zero,
        zero,
    )
    return (config.gamma * scores.cosine + MAHALANOBIS_WEIGHT * scores.mahalanobis)[0]


def weigh_layers(vectors: Tensor, config: DetectorConfig) -> Tensor:
    """Returns the weight of each layer [L], summing to 1; fitted ones follow the steadiness of a layer."""
    L = vectors.shape[1]
    weights = torch.zeros(L, dtype=torch.float64)
    if config.layer_weights == "last":
        weights[-1] = 1
    elif config.layer_weights == "official":
        weights[1:] = 1
    elif config.layer_weights == "fitted":
        weights = vectors.mean(dim=0).abs() / vectors.std(dim=0, correction=0).clamp_min(SMALLEST_SPREAD)
    else:
        weights[:] = 1
    return weights / weights.sum()


def judge(vectors: Tensor, state: BoundaryState, config: DetectorConfig) -> Tensor:
    """Returns the boundary score of layer-score vectors [N, L]."""
    if config.family == "official":
        return vectors[:, 1:] @ state.coefficients
    z = (vectors - state.center) / state.spread
    if config.boundary == "none":
        return z @ state.layer_weights
    if config.boundary == "linear":
        slope = (state.coefficients @ state.support).clamp_min(0) * state.layer_weights
        return (POSITIVE_SHIFT + z) @ slope
    short = z.clamp_max(0)
    if config.boundary == "gaussian":
        return -torch.einsum("nl,lm,nm->n", short, state.support, short)
    distance = torch.cdist(POSITIVE_SHIFT + short, state.support).square()
    return torch.exp(-state.width * distance) @ state.coefficients


def fit_official(features: Tensor, config: DetectorConfig) -> BoundaryState:
    """Fits the released code's statistics: the first prompts are used, the rest places the gate."""
    N, L, _ = features.shape
    used = max(1, min(N - 1, int(config.used_fraction * N))) if N > 1 else 1
    rows = features.double()
    mean, bank = rows[:used].mean(dim=0), F.normalize(rows[:used], dim=-1).transpose(0, 1).contiguous()
    root = precision_root(empirical_precision(rows[:used]))
    vectors = official_layer_scores(rows, mean, root, bank)
    support, coefficients, width = fit_one_class(vectors[:used, 1:], kernel="linear", nu=config.nu)
    scores = vectors[:, 1:] @ (coefficients @ support)
    rest = scores[used:] if N > 1 else scores
    gate = fit_official_gate(scores[:used], rest)
    one = torch.ones(L, dtype=torch.float64)
    place = torch.tensor([gate.used, gate.rest, gate.deviation], dtype=torch.float64)
    slope = coefficients @ support
    return BoundaryState(mean, one, root, bank, 0 * one, one, one, one[None], slope, width, place)


def boundary_scores(features: Tensor, state: BoundaryState, config: DetectorConfig) -> Tensor:
    """Returns scores [N], higher = closer: standardised, or minus the distance from the official center."""
    if config.family == "official":
        vectors = boundary_layers(features, state, config)
        gate = official_gate(state)
        return -(judge(vectors, state, config) - gate.center).abs()
    scores = judge(layer_vectors(features, state, config), state, config)
    return (scores - state.gate[0]) / state.gate[1]


def boundary_layers(features: Tensor, state: BoundaryState, config: DetectorConfig) -> Tensor:
    """Returns the layer scores [N, L]: standardised by the forget prompts, or the official raw ones."""
    if config.family == "official":
        return official_layer_scores(features, state.mean, state.whitening, state.bank)
    return (layer_vectors(features, state, config) - state.center) / state.spread


def boundary_weights(scores: Tensor, state: BoundaryState, config: DetectorConfig) -> Tensor:
    """Returns weights in [0, 1] for scores of `boundary_scores`."""
    if config.family == "official":
        gate = official_gate(state)
        return official_soft_weights(scores + gate.center, gate)
    return tail_weights(scores, config.tail, config.sharpness)


def official_gate(state: BoundaryState) -> OfficialGate:
    """Returns the official gate behind the stored numbers."""
    return OfficialGate(*(float(value) for value in state.gate))


def boundary_tensors(state: BoundaryState) -> dict[str, Tensor]:
    """Returns the tensors of a state by name."""
    return {field.name: getattr(state, field.name) for field in fields(BoundaryState)}
