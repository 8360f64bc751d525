"""Metrics over a whole sequence of requests.

Shapes: K requests; a persistence matrix is [K, K + 1], column 0 the base model, column j after request j.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["backward_transfer", "unlearning_to_utility_ratio"]

SMALLEST_DROP = 0.01


def backward_transfer(values: Sequence[Sequence[float]]) -> float | None:
    """Returns how much earlier requests changed from their own unlearning to the end, on average.

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
    earlier = len(values) - 1
    if earlier < 1:
        return None
    return sum(values[i][-1] - values[i][i + 1] for i in range(earlier)) / earlier


def unlearning_to_utility_ratio(
    forget: Sequence[tuple[float, float]], utility: Sequence[tuple[float, float]]
) -> float | None:
    """Returns our reading of U2R: the mean drop on what is forgotten over the mean drop on what is kept.

    Args:
        forget: (base, now) accuracies on seen and held-out prompts of all requests.
        utility: (base, now) accuracies on the utility splits.

    Returns:
        The ratio; a utility drop under 0.01 counts as 0.01, so the value is at most 100. None where either
        side has no pair.

    Source:
        O3, figure 2. The paper gives the equation as an image only; this form is our reading of its text.

    Example:
        >>> unlearning_to_utility_ratio([(1.0, 0.0)], [(1.0, 0.9)])
        10.0
    """
    if not forget or not utility:
        return None
    gain = sum(before - after for before, after in forget) / len(forget)
    loss = sum(before - after for before, after in utility) / len(utility)
    return round(gain / max(loss, SMALLEST_DROP), 10)
