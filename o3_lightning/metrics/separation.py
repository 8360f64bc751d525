"""How well scores separate the forget set's prompts from others; higher = forget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

__all__ = ["area_under_roc", "average_precision", "false_positive_rate", "separation"]


def area_under_roc(inside: Sequence[float], outside: Sequence[float]) -> float:
    """Returns the probability that a forget prompt scores above another one, ties counting half.

    Args:
        inside: scores of the forget set's prompts, at least one.
        outside: scores of other prompts, at least one.

    Returns:
        A value in [0, 1]; 0.5 is chance, below 0.5 the score has the wrong sign.

    Source:
        scikit-learn's `roc_auc_score`. The official O3 code keeps the better of both signs; this does not.

    Example:
        >>> area_under_roc([0.9, 0.8], [0.1, 0.8])
        0.875
    """
    return float(roc_auc_score(*label(inside, outside)))


def average_precision(inside: Sequence[float], outside: Sequence[float]) -> float:
    """Returns the area under the precision-recall curve, forget prompts being positive, in [0, 1]."""
    return float(average_precision_score(*label(inside, outside)))


def false_positive_rate(inside: Sequence[float], outside: Sequence[float], recall: float = 0.95) -> float:
    """Returns the share in [0, 1] of other prompts at or above the highest threshold that reaches `recall`.

    Args:
        inside: scores of the forget set's prompts.
        outside: scores of other prompts.
        recall: share of forget prompts to find, in (0, 1]; 0.95 is the field's FPR95.

    Source:
        scikit-learn's `roc_curve`.

    Example:
        >>> false_positive_rate([0.9, 0.8], [0.1, 0.85])
        0.5
    """
    false_positives, true_positives, _ = roc_curve(*label(inside, outside), drop_intermediate=False)
    return float(false_positives[np.argmax(true_positives >= recall)])


def separation(inside: Sequence[float], outside: Sequence[float]) -> dict[str, float]:
    """Returns `auroc`, `aupr` and `fpr95`, the three functions of this file.

    Example:
        >>> separation([2.0, 3.0], [0.0, 1.0])
        {'auroc': 1.0, 'aupr': 1.0, 'fpr95': 0.0}
    """
    return {
        "auroc": area_under_roc(inside, outside),
        "aupr": average_precision(inside, outside),
        "fpr95": false_positive_rate(inside, outside),
    }


def label(inside: Sequence[float], outside: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of both groups together."""
    labels = np.repeat([1.0, 0.0], [len(inside), len(outside)])
    return labels, np.concatenate([np.asarray(inside, float), np.asarray(outside, float)])
