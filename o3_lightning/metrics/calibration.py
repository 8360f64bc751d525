"""Whether detector weights mean what they say, and which requests they confuse.

Shapes: B prompts, K requests.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import confusion_matrix

__all__ = ["HALF", "calibration_error", "request_confusion", "request_weights"]

BINS = 10
HALF = 0.5  # a prompt with this weight or more is taken for the request's


def calibration_error(
    inside: ArrayLike, outside: ArrayLike, bins: int = BINS, *, balanced: bool = True
) -> float:
    """Returns how far weights are from the share of forget prompts among prompts of that weight.

    Args:
        inside: weights in [0, 1] of the forget set's prompts, at least one.
        outside: weights in [0, 1] of other prompts, at least one.
        bins: of equal width, >= 1.
        balanced: whether both sides count alike, however many prompts they have. False lets every prompt
            count alike, as the literature does; the value then depends on the sizes of the splits.

    Returns:
        The expected calibration error in [0, 1]; 0 is best.

    Raises:
        ValueError: a weight outside [0, 1], or a side without any.

    Source:
        Guo et al. 2017; torchmetrics `binary_calibration_error` (norm "l1") is the one that is not balanced,
        and takes no weights of examples, so that the balanced one is computed here.

    Example:
        >>> calibration_error([1.0, 1.0], [0.0])
        0.0
        >>> calibration_error([0.5], [0.5, 0.5]), calibration_error([0.5], [0.5] * 3, balanced=False)
        (0.0, 0.25)
    """
    sides = [np.asarray(side, float).reshape(-1) for side in (inside, outside)]
    if not all(len(side) and side.min() >= 0 and side.max() <= 1 for side in sides):
        raise ValueError("expected at least one weight a side, all in [0, 1]")
    weights, label = np.concatenate(sides), np.repeat([1.0, 0.0], [len(side) for side in sides])
    mass = [0.5 / len(side) if balanced else 1 / len(weights) for side in sides]
    gaps = np.where(label == 1, mass[0], mass[1]) * (weights - label)
    places = np.minimum((weights * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(places, gaps, bins)).sum())


def request_confusion(
    weights: ArrayLike, owners: Sequence[int | None], threshold: float = HALF
) -> list[list[int]]:
    """Returns how many prompts of each request are taken for each request.

    Args:
        weights: [B, K], in [0, 1].
        owners: B numbers of the request that a prompt belongs to, None for a prompt of no request.
        threshold: a prompt of which every weight is below it is taken for none.

    Returns:
        Counts [K + 1, K + 1]: row = owner, column = the request of the largest weight; the last of each
        stands for "none". Of equal weights the earlier request counts.

    Raises:
        ValueError: weights of another shape, or an owner that is no request.

    Source:
        scikit-learn `confusion_matrix`.

    Example:
        >>> request_confusion([[0.9, 0.1], [0.8, 0.9], [0.0, 0.2]], [0, 0, None])
        [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    """
    table, rows = checked(weights, owners)
    requests = table.shape[1]
    taken = np.where(table.max(1) >= threshold, table.argmax(1), requests)
    counts: list[list[int]] = confusion_matrix(rows, taken, labels=range(requests + 1)).tolist()
    return counts


def request_weights(weights: ArrayLike, owners: Sequence[int | None]) -> list[list[float | None]]:
    """Returns the mean weight of each request on the prompts of each request.

    Args:
        weights: [B, K], in [0, 1].
        owners: as in `request_confusion`.

    Returns:
        Means [K + 1, K]: row = owner, the last row = prompts of no request; None where a row has no prompt.

    Raises:
        ValueError: as in `request_confusion`.

    Example:
        >>> request_weights([[1.0, 0.0], [0.5, 0.0]], [0, 0])
        [[0.75, 0.0], [None, None], [None, None]]
    """
    table, rows = checked(weights, owners)
    requests = table.shape[1]
    return [
        table[rows == row].mean(0).tolist() if (rows == row).any() else [None] * requests
        for row in range(requests + 1)
    ]


def checked(weights: ArrayLike, owners: Sequence[int | None]) -> tuple[np.ndarray, np.ndarray]:
    """The weights [B, K] and the row [B] of each prompt's owner."""
    table = np.asarray(weights, float)
    if table.ndim != 2 or len(table) != len(owners) or not table.size:
        raise ValueError(f"expected weights [{len(owners)}, K], got {list(table.shape)}")
    requests = table.shape[1]
    if any(owner is not None and not 0 <= owner < requests for owner in owners):
        raise ValueError(f"expected owners from 0 to {requests - 1} or None")
    return table, np.array([requests if owner is None else owner for owner in owners])
