"""Metrics of detectors: separation from other prompts, calibration of weights, confusion of requests.

A side without scores raises ValueError, as does a score that is not finite. Shapes: B prompts, K requests.
scikit-learn, which takes seconds to import, is imported on first use.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

BINS = 10
RECALL = 0.95
HALF = 0.5  # a prompt counts as recognised from this weight on


def area_under_roc(inside: Sequence[float], outside: Sequence[float]) -> float:
    """Returns the probability that a forget prompt (`inside`) scores above another one, ties counting half.

    A value in [0, 1]; 0.5 is chance, below 0.5 the score has the wrong sign.

    Source:
        scikit-learn's `roc_auc_score`. The official O3 code keeps the better of both signs; this does not.

    Example:
        >>> area_under_roc([0.9, 0.8], [0.1, 0.8])
        0.875
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*label(inside, outside)))


def average_precision(inside: Sequence[float], outside: Sequence[float]) -> float:
    """Returns the area under the precision-recall curve, forget prompts being positive, in [0, 1]."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*label(inside, outside)))


def false_positive_rate(inside: Sequence[float], outside: Sequence[float]) -> float:
    """Returns FPR95: the share in [0, 1] of other prompts let in where 95 % of forget prompts are found.

    Source:
        scikit-learn's `roc_curve`.
    """
    from sklearn.metrics import roc_curve

    false_positives, true_positives, _ = roc_curve(*label(inside, outside), drop_intermediate=False)
    return float(false_positives[np.argmax(true_positives >= RECALL)])


def separation(inside: Sequence[float], outside: Sequence[float]) -> dict[str, float]:
    """Returns `auroc`, `aupr` and `fpr95`, the three functions of this file."""
    return {
        "auroc": area_under_roc(inside, outside),
        "aupr": average_precision(inside, outside),
        "fpr95": false_positive_rate(inside, outside),
    }


def label(inside: Sequence[float], outside: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of both groups together."""
    if not len(inside) or not len(outside):
        raise ValueError(f"expected at least one score a side, got {len(inside)} and {len(outside)}")
    labels = np.repeat([1.0, 0.0], [len(inside), len(outside)])
    return labels, np.concatenate([np.asarray(inside, float), np.asarray(outside, float)])


def calibration_error(inside: ArrayLike, outside: ArrayLike) -> float:
    """Returns the expected calibration error, in ten bins, of the weights of forget and of other prompts.

    A value in [0, 1]; 0 is best. Both sides have the same total mass, so that it does not depend on the sizes
    of the splits.

    Args:
        inside: weights in [0, 1] of the forget set's prompts, at least one.
        outside: weights in [0, 1] of other prompts, at least one.

    Raises:
        ValueError: a weight outside [0, 1], or a side without any.

    Source:
        Guo et al. 2017; for sides of one size it equals torchmetrics `binary_calibration_error` (norm "l1"),
        which accepts no example weights.

    Example:
        >>> calibration_error([1.0, 1.0], [0.0]), calibration_error([0.5], [0.5, 0.5])
        (0.0, 0.0)
    """
    sides = [np.asarray(side, float).reshape(-1) for side in (inside, outside)]
    if not all(len(side) and side.min() >= 0 and side.max() <= 1 for side in sides):
        raise ValueError("expected at least one weight a side, all in [0, 1]")
    weights, label = np.concatenate(sides), np.repeat([1.0, 0.0], [len(side) for side in sides])
    gaps = np.where(label == 1, 0.5 / len(sides[0]), 0.5 / len(sides[1])) * (weights - label)
    places = np.minimum((weights * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(places, gaps, BINS)).sum())


def request_confusion(weights: ArrayLike, owners: Sequence[int | None]) -> list[list[int]]:
    """Returns how many prompts of each request are assigned to each request.

    Args:
        weights: [B, K], in [0, 1].
        owners: B indices of the request that a prompt belongs to; None for a prompt of no request.

    Returns:
        Counts [K + 1, K + 1]: row = owner, column = request of the largest weight (the first of equal ones);
        the last row and column are "none", that of prompts whose weights are all below 0.5.

    Raises:
        ValueError: weights of another shape, or an owner that is no request.

    Example:
        >>> request_confusion([[0.9, 0.1], [0.8, 0.9], [0.0, 0.2]], [0, 0, None])
        [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    """
    table = np.asarray(weights, float)
    if table.ndim != 2 or len(table) != len(owners) or not table.size:
        raise ValueError(f"expected weights [{len(owners)}, K], got {list(table.shape)}")
    requests = table.shape[1]
    if any(owner is not None and not 0 <= owner < requests for owner in owners):
        raise ValueError(f"expected owners from 0 to {requests - 1} or None")
    rows = [requests if owner is None else owner for owner in owners]
    taken = np.where(table.max(1) >= HALF, table.argmax(1), requests)
    from sklearn.metrics import confusion_matrix

    counts: list[list[int]] = confusion_matrix(rows, taken, labels=range(requests + 1)).tolist()
    return counts
