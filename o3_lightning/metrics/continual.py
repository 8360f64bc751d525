"""Metrics over a whole sequence of requests.

Shapes: K requests; a persistence matrix is [K, K + 1], column 0 the base model, column j after request j.
"""

from __future__ import annotations

from collections.abc import Sequence

from o3_lightning.common.plain import mean_of

__all__ = ["backward_transfer", "unlearning_to_utility_ratio"]

SMALLEST_DROP = 0.01


def backward_transfer(values: Sequence[Sequence[float]]) -> float | None:
    """Returns the mean change of earlier requests from their own unlearning to the end of the sequence.

    Args:
        values: a persistence matrix [K, K + 1].

    Returns:
        mean_i (M[i, K] - M[i, i]) over the first K - 1 requests (counted from 1); for accuracies a positive
        value means that forgotten answers came back. None with fewer than two requests.

    Source:
        Backward transfer of continual learning (Lopez-Paz and Ranzato, 2017), here on forgetting.

    Example:
        >>> backward_transfer([[1.0, 0.0, 0.5], [1.0, 1.0, 0.0]])
        0.5
    """
    return mean_of(row[-1] - row[number] for number, row in enumerate(values[:-1], start=1))


def unlearning_to_utility_ratio(
    forget: Sequence[tuple[float, float]], utility: Sequence[tuple[float, float]]
) -> float | None:
    """Returns U2R: the mean accuracy drop on forget prompts over the mean drop on utility prompts.

    Args:
        forget: (base, now) accuracies on seen and held-out prompts of all requests.
        utility: (base, now) accuracies on the utility splits.

    Returns:
        The ratio, at most 100 because a utility drop counts as 0.01 or more; None where a side is empty.

    Source:
        O3, figure 2. The paper gives the equation as an image only; this form follows its text.

    Example:
        >>> unlearning_to_utility_ratio([(1.0, 0.0)], [(1.0, 0.9)])
        10.0
    """
    gain, loss = (mean_of(before - after for before, after in pairs) for pairs in (forget, utility))
    return None if gain is None or loss is None else round(gain / max(loss, SMALLEST_DROP), 10)
