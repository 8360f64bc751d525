"""What benchmarks combine from all splits of an evaluation: utilities, forget efficacy, O3's accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from o3_lightning.metrics.pooling import official_accuracies
from o3_lightning.metrics.quality import closer_look_utility, forget_efficacy, tofu_utility

__all__ = ["combine"]

ACCURACY = "accuracy"
Result = Mapping[str, Any]


def combine(result: Result) -> dict[str, Any]:
    """Returns the combined metrics of which every part was measured.

    Args:
        result: of `evaluate_stream`.

    Returns:
        `tofu_utility` and `closer_look_utility` with their parts; `forget_efficacy` by split; `official`,
        O3's accuracies. All utility splits count as retained there, for a stream does not tell them apart.
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
