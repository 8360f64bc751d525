"""Numbers over all splits of an evaluation: utilities, forget efficacy, O3's accuracies, the plane."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from o3_lightning.metrics.aggregate import confidence_interval
from o3_lightning.metrics.quality import (
    closer_look_utility,
    forget_efficacy,
    official_accuracies,
    tofu_utility,
)

__all__ = ["ACCURACY", "Place", "combine", "place_on_plane"]

ACCURACY = "accuracy"
SEED = 0  # of the interval; used only if accuracies are not all 0 or 1
Place = dict[str, dict[str, float]]
Result = Mapping[str, Any]


def combine(result: Result) -> dict[str, Any]:
    """Returns the combined metrics whose parts were all measured.

    Args:
        result: of `evaluate_stream`.

    Returns:
        `tofu_utility` and `closer_look_utility` with their parts; `forget_efficacy` by split; `official`,
        O3's accuracies, in which all utility splits count as retained.
    """
    aggregates = {name: part["aggregate"] for name, part in result["utility"].items()}
    found: dict[str, Any] = {}
    for name, combined in (
        ("tofu_utility", tofu_utility(aggregates)),
        ("closer_look_utility", closer_look_utility(aggregates)),
    ):
        if combined.value is not None:
            found[name] = {"value": combined.value, "parts": dict(combined.parts)}
    efficacy = {
        f"{owner}/{split}": value
        for owner, splits in result["requests"].items()
        for split, part in splits.items()
        if (value := forget_efficacy(part["aggregate"]).value) is not None
    }
    if efficacy:
        found["forget_efficacy"] = efficacy
    seen, held_out = (values_of(result["requests"], split) for split in ("seen", "held_out"))
    kept = {
        name: part["values"][ACCURACY]
        for name, part in result["utility"].items()
        if ACCURACY in part["values"]
    }
    if seen:
        found["official"] = asdict(official_accuracies(seen, held_out, kept, {}))
    return found


def values_of(requests: Result, split: str) -> dict[str, list[float | None]]:
    """The accuracies of one split of each request that has it."""
    return {
        name: splits[split]["values"][ACCURACY]
        for name, splits in requests.items()
        if split in splits and ACCURACY in splits[split]["values"]
    }


def place_on_plane(measured: Mapping[str, Any]) -> Place:
    """Returns the accuracy on forget splits and on utility splits, each with its 95 % interval.

    Args:
        measured: a result of `evaluate_stream`.

    Returns:
        `forget` (held-out prompts of all requests, pooled; seen prompts if no request has held-out ones) and
        `utility` (all utility splits, pooled), each with `value`, `low`, `high` and `rows`. A side that was
        not measured is left out.
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
    """Mean and interval over the rows of several splits; empty if none was measured."""
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
