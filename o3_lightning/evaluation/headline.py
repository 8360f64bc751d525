"""The few numbers of a finished run that comparisons start from."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from o3_lightning.common.plain import mean_of

__all__ = ["FIGURES", "headline"]

FIGURES: dict[str, str] = {
    "seen": "accuracy on the forget prompts, mean over requests (lower is better)",
    "held_out": "accuracy on held-out prompts of the same knowledge, mean over requests (lower is better)",
    "worst_held_out": "the same of the request that kept most (lower is better)",
    "truth": "probability of the true answer on held-out prompts, mean over requests (lower is better)",
    "utility": "accuracy over the base model's, mean over utility splits (higher is better)",
    "worst_utility": "the same on the split that lost most (higher is better)",
    "drift": "largest change of an earlier request's held-out accuracy since its unlearning (0 is best)",
    "utility_truth": "probability of true answers over the base model's, mean over its splits (1 is best)",
    "truth_drift": "as drift, of the probability of the true answer (0 is best)",
    "interference": "KL in nats by an adapter at full weight on other requests' prompts (lower is better)",
    "row_overlap": "mean squared cosine between the input spaces of two adapters (0 is orthogonal)",
    "column_overlap": "mean squared cosine between the output spaces of two adapters (0 is orthogonal)",
    "update_cosine": "cosine between the weight updates of two adapters, mean size (0 is orthogonal)",
    "slowdown": "rise of training time from the second to the last request, on a straight line (0 is best)",
    "u2r": "mean drop on what is forgotten over mean drop on what is kept (higher is better)",
    "seconds": "training and detector time a request, in seconds",
}


def headline(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns the figures of a run's last column, by the names in `FIGURES`.

    Args:
        metrics: the content of a run's `metrics.json`.

    Returns:
        Fractions, except u2r (a ratio) and seconds. A figure that was not measured is left out: held-out
        figures of a benchmark without held-out prompts, drift and what is between two adapters with one
        request, slowdown with fewer than four, utility without a split or of a base model that answers
        nothing right.

    Example:
        >>> matrix = {"values": [[1.0, 0.0, 0.25], [1.0, 1.0, 0.0]]}
        >>> forget = {"requests": ["a", "b"], "persistence": {"accuracy": {"held_out": matrix}}}
        >>> headline({**forget, "utility": {"kept": [0.5, 0.5, 0.4]}, "u2r": None, "seconds": {}})
        {'held_out': 0.125, 'worst_held_out': 0.25, 'utility': 0.8, 'worst_utility': 0.8, 'drift': 0.25}
    """
    held_out = complete(metrics, "accuracy", "held_out")
    truth = complete(metrics, "probability", "held_out")
    kept = ratios(metrics["utility"])
    spent = [
        seconds for stage, seconds in metrics["seconds"].items() if stage.endswith(("-protect", "-unlearn"))
    ]
    figures = {
        "seen": mean_of(row[-1] for row in complete(metrics, "accuracy", "seen")),
        "held_out": mean_of(row[-1] for row in held_out),
        "worst_held_out": max((row[-1] for row in held_out), default=None),
        "truth": mean_of(row[-1] for row in truth),
        "utility": mean_of(kept),
        "worst_utility": min(kept, default=None),
        "drift": drift(matrix_of(metrics, "accuracy", "held_out")),
        "utility_truth": mean_of(ratios(metrics.get("utility_metrics", {}).get("probability", {}))),
        "truth_drift": drift(matrix_of(metrics, "probability", "held_out")),
        **between_adapters(metrics.get("overlaps", {})),
        "slowdown": slowdown([item["seconds"] for item in metrics.get("adapters", {}).values()]),
        "u2r": metrics["u2r"],
        "seconds": sum(spent) / len(metrics["requests"]) if spent else None,
    }
    return {name: value for name, value in figures.items() if value is not None}


def ratios(splits: Mapping[str, Sequence[float]]) -> list[float]:
    """The last column over the base model's, of each split where that is not 0."""
    return [column[-1] / column[0] for column in splits.values() if column[0]]


def drift(matrix: Sequence[Sequence[float | None]]) -> float | None:
    """The largest change of a request from its own column to the last, of all but the last request.

    Requests that were not measured have a row too, or the columns would be those of other requests.
    """
    changes = (
        abs(row[-1] - row[number]) for number, row in enumerate(matrix[:-1], start=1) if is_measured(row)
    )
    return max(changes, default=None)


def between_adapters(matrices: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, float | None]:
    """The mean size of each matrix beside its diagonal."""
    return {
        name: mean_of(
            abs(value)
            for i, row in enumerate(matrices.get(name, ()))
            for j, value in enumerate(row)
            if i != j
        )
        for name in ("interference", "row_overlap", "column_overlap", "update_cosine")
    }


def slowdown(seconds: Sequence[float]) -> float | None:
    """How much longer the last takes than the second along a straight line of least squares."""
    later = seconds[1:]
    if len(later) < 3:
        return None
    fit = statistics.linear_regression(range(len(later)), later)
    return fit.slope * (len(later) - 1) / fit.intercept


def matrix_of(metrics: Mapping[str, Any], metric: str, split: str) -> list[Sequence[float | None]]:
    """The rows of a persistence matrix; none where there is no such matrix."""
    return list(metrics["persistence"].get(metric, {}).get(split, {"values": []})["values"])


def complete(metrics: Mapping[str, Any], metric: str, split: str) -> list[Sequence[float]]:
    """Those that were measured."""
    return [row for row in matrix_of(metrics, metric, split) if is_measured(row)]


def is_measured(row: Sequence[float | None]) -> TypeGuard[Sequence[float]]:
    """Whether every column of a request was measured."""
    return None not in row
