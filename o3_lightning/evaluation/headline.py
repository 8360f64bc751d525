"""The few numbers of a finished run that comparisons start from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["FIGURES", "headline"]

FIGURES: dict[str, str] = {
    "seen": "accuracy on the forget prompts, mean over requests (lower is better)",
    "held_out": "accuracy on held-out prompts of the same knowledge, mean over requests (lower is better)",
    "worst_held_out": "the same of the request that kept most (lower is better)",
    "truth": "probability of the true answer on held-out prompts, mean over requests (lower is better)",
    "utility": "accuracy over the base model's, mean over utility splits (higher is better)",
    "worst_utility": "the same on the split that lost most (higher is better)",
    "drift": "largest change of an earlier request's held-out accuracy since its unlearning (0 is best)",
    "u2r": "mean drop on what is forgotten over mean drop on what is kept (higher is better)",
    "seconds": "training and detector time a request, in seconds",
}


def headline(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns the figures of a run's last column, by the names in `FIGURES`.

    Args:
        metrics: the content of a run's `metrics.json`.

    Returns:
        Fractions, except u2r (a ratio) and seconds. A figure that was not measured is left out: held-out
        figures of a benchmark without held-out prompts, drift with one request, utility without a split
        or of a base model that answers nothing right.

    Example:
        >>> matrix = {"values": [[1.0, 0.0, 0.25], [1.0, 1.0, 0.0]]}
        >>> forget = {"requests": ["a", "b"], "persistence": {"accuracy": {"held_out": matrix}}}
        >>> headline({**forget, "utility": {"kept": [0.5, 0.5, 0.4]}, "u2r": None, "seconds": {}})
        {'held_out': 0.125, 'worst_held_out': 0.25, 'utility': 0.8, 'worst_utility': 0.8, 'drift': 0.25}
    """
    held_out = complete(metrics, "accuracy", "held_out")
    kept = [column[-1] / column[0] for column in metrics["utility"].values() if column[0]]
    spent = [
        seconds for stage, seconds in metrics["seconds"].items() if stage.endswith(("-protect", "-unlearn"))
    ]
    drift = [abs(row[-1] - row[number]) for number, row in enumerate(held_out[:-1], start=1)]
    figures = {
        "seen": mean(row[-1] for row in complete(metrics, "accuracy", "seen")),
        "held_out": mean(row[-1] for row in held_out),
        "worst_held_out": max((row[-1] for row in held_out), default=None),
        "truth": mean(row[-1] for row in complete(metrics, "probability", "held_out")),
        "utility": mean(kept),
        "worst_utility": min(kept, default=None),
        "drift": max(drift, default=None),
        "u2r": metrics["u2r"],
        "seconds": sum(spent) / len(metrics["requests"]) if spent else None,
    }
    return {name: value for name, value in figures.items() if value is not None}


def complete(metrics: Mapping[str, Any], metric: str, split: str) -> list[Sequence[float]]:
    """The rows of a persistence matrix that were measured; none where there is no such matrix."""
    matrix = metrics["persistence"].get(metric, {}).get(split, {"values": []})
    return [row for row in matrix["values"] if None not in row]


def mean(values: Iterable[float]) -> float | None:
    """The mean, or None of nothing."""
    listed = list(values)
    return sum(listed) / len(listed) if listed else None
