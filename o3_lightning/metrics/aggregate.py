"""From values per example to one number."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["mean_of"]


def mean_of(values: Sequence[float | None]) -> float | None:
    """Returns the mean of the values that are there, or None where there is none.

    Example:
        >>> mean_of([1.0, None, 0.0]), mean_of([None])
        (0.5, None)
    """
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
