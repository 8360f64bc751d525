"""What became of each request after each later one, from the measurements of a whole run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from o3_lightning.metrics.choice import unparseable
from o3_lightning.metrics.continual import backward_transfer, unlearning_to_utility_ratio

__all__ = [
    "backward_transfers",
    "persistence_matrices",
    "unreadable_answers",
    "utility_ratio",
    "utility_series",
]

Measured = Mapping[str, Any]
BASE = "base"
RATIO_METRIC = "accuracy"


def persistence_matrices(
    identifiers: Sequence[str], measured: Sequence[Measured]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns `[metric][split]` = rows, columns and values [K, K + 1].

    Args:
        identifiers: the K requests, in order.
        measured: K + 1 results of `evaluate_stream`: of the base model, then after each request.

    Returns:
        `values[i][j]` is request i measured in column j: 0 the base model, j after request j. It is None
        where the request has no such split (no held-out prompts) or metric (no perturbed answers).
    """
    matrices: dict[str, dict[str, dict[str, Any]]] = {}
    for metric, split in measured_pairs(measured[0]["requests"].values()):
        values = [
            [value_of(stage["requests"][name], split, metric) for stage in measured] for name in identifiers
        ]
        matrix = {"rows": list(identifiers), "columns": [BASE, *identifiers], "values": values}
        matrices.setdefault(metric, {})[split] = matrix
    return matrices


def measured_pairs(requests: Iterable[Measured]) -> list[tuple[str, str]]:
    """Returns every pair of metric and split that some request has, in the order of first sight."""
    pairs = {
        (metric, split): None
        for splits in requests
        for split, result in splits.items()
        for metric in result["aggregate"]
    }
    return list(pairs)


def value_of(splits: Measured, split: str, metric: str) -> float | None:
    """One aggregate of one request, or None where it was not measured."""
    value: float | None = splits.get(split, {}).get("aggregate", {}).get(metric)
    return value


def utility_series(measured: Sequence[Measured]) -> dict[str, dict[str, list[float]]]:
    """Returns `[metric][split]` = one value per column, as in `persistence_matrices`."""
    series: dict[str, dict[str, list[float]]] = {}
    for split, result in measured[0]["utility"].items():
        for metric in result["aggregate"]:
            columns = [value_of(stage["utility"], split, metric) for stage in measured]
            known = [value for value in columns if value is not None]
            if len(known) == len(columns):  # a metric may lose its values, as when no answer can be parsed
                series.setdefault(metric, {})[split] = known
    return series


def unreadable_answers(measured: Sequence[Measured]) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns `[owner][split][metric]`: in how many rows the metric found nothing to judge.

    The owner is a request, or "utility"; `count` has one number a column, of `rows` in all. A multiple-choice
    answer that names no option is such a row: it counts neither as known nor as forgotten.
    Metrics that judged every row in every column are left out.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for owner, splits in (*measured[0]["requests"].items(), ("utility", measured[0]["utility"])):
        for split, first in splits.items():
            for metric, values in first["values"].items():
                columns = [part_of(stage, owner)[split]["values"][metric] for stage in measured]
                counts = [unparseable(column) for column in columns]
                if any(counts):
                    row = {"count": counts, "rows": len(values)}
                    found.setdefault(owner, {}).setdefault(split, {})[metric] = row
    return found


def part_of(stage: Measured, owner: str) -> Any:
    """The splits of one request, or of the utility."""
    return stage["utility"] if owner == "utility" else stage["requests"][owner]


def complete_rows(matrix: Measured) -> list[list[float]]:
    """The rows of a matrix that were measured."""
    return [row for row in matrix["values"] if None not in row]


def backward_transfers(matrices: Mapping[str, Mapping[str, Measured]]) -> dict[str, dict[str, float | None]]:
    """Returns `[metric][split]` = mean change of earlier requests from their own unlearning to the end.

    None where a request was not measured, for the columns are then no longer one a row.
    """
    return {
        metric: {
            split: None
            if len(complete_rows(matrix)) < len(matrix["values"])
            else backward_transfer(matrix["values"])
            for split, matrix in splits.items()
        }
        for metric, splits in matrices.items()
    }


def utility_ratio(
    matrices: Mapping[str, Mapping[str, Measured]], utility: Mapping[str, Mapping[str, Sequence[float]]]
) -> float | None:
    """Returns U2R of the accuracy at the end of the run; None where accuracy was not measured."""
    forget = [
        (row[0], row[-1])
        for matrix in matrices.get(RATIO_METRIC, {}).values()
        for row in complete_rows(matrix)
    ]
    kept = [(column[0], column[-1]) for column in utility.get(RATIO_METRIC, {}).values()]
    return unlearning_to_utility_ratio(forget, kept)
