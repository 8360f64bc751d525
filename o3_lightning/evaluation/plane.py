"""Two numbers with intervals that place a model: what it still knows of the forgotten, what it kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from o3_lightning.metrics.aggregate import confidence_interval

__all__ = ["ACCURACY", "Place", "place_on_plane"]

ACCURACY = "accuracy"
SEED = 0  # accuracies are 0 or 1 and need no resampling; fixed for the case that they are not
Place = dict[str, dict[str, float]]


def place_on_plane(measured: Mapping[str, Any]) -> Place:
    """Returns accuracy on forgotten and on kept knowledge, each with its 95 % interval.

    Args:
        measured: a result of `evaluate_stream`.

    Returns:
        `forget` (held-out prompts of all requests, pooled; seen prompts where there are no others) and
        `utility` (all utility splits, pooled), each `value`, `low`, `high` and `rows`. A side that was not
        measured is left out.
    """
    requests = measured["requests"].values()
    split = "held_out" if any("held_out" in splits for splits in requests) else "seen"
    sides = {
        "forget": [splits[split] for splits in requests if split in splits],
        "utility": list(measured["utility"].values()),
    }
    places = {side: pooled(results) for side, results in sides.items()}
    return {side: place for side, place in places.items() if place}


def pooled(results: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The mean over the rows of several splits with its interval; nothing where none was measured."""
    values = [
        value for result in results for value in result["values"].get(ACCURACY, ()) if value is not None
    ]
    interval = confidence_interval(values, SEED)
    if interval is None:
        return {}
    return {
        "value": sum(values) / len(values),
        "low": interval.low,
        "high": interval.high,
        "rows": len(values),
    }
