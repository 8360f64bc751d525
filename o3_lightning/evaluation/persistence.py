"""What became of each request after each later one, from the measurements of a whole run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from o3_lightning.metrics.continual import backward_transfer, unlearning_to_utility_ratio

__all__ = ["backward_transfers", "persistence_matrices", "utility_ratio", "utility_series"]

Measured = Mapping[str, Any]
BASE = "base"


def persistence_matrices(
    identifiers: Sequence[str], measured: Sequence[Measured]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns `[metric][split]` = rows, columns and values [K, K + 1].

    Args:
        identifiers: the K requests, in order.
        measured: K + 1 results of `evaluate_stream`: of the base model, then after each request.

    Returns:
        `values[i][j]` is request i measured in column j: 0 the base model, j after request j.
    """
    matrices: dict[str, dict[str, dict[str, Any]]] = {}
    splits = measured[0]["requests"][identifiers[0]]
    for split, result in splits.items():
        for metric in result["aggregate"]:
            values = [
                [stage["requests"][name][split]["aggregate"][metric] for stage in measured]
                for name in identifiers
            ]
            matrix = {"rows": list(identifiers), "columns": [BASE, *identifiers], "values": values}
            matrices.setdefault(metric, {})[split] = matrix
    return matrices


def utility_series(measured: Sequence[Measured]) -> dict[str, dict[str, list[float]]]:
    """Returns `[metric][split]` = one value per column, as in `persistence_matrices`."""
    series: dict[str, dict[str, list[float]]] = {}
    for split, result in measured[0]["utility"].items():
        for metric in result["aggregate"]:
            column = [stage["utility"][split]["aggregate"][metric] for stage in measured]
            series.setdefault(metric, {})[split] = column
    return series


def backward_transfers(matrices: Mapping[str, Mapping[str, Measured]]) -> dict[str, dict[str, float | None]]:
    """Returns `[metric][split]` = mean change of earlier requests from their own unlearning to the end."""
    return {
        metric: {split: backward_transfer(matrix["values"]) for split, matrix in splits.items()}
        for metric, splits in matrices.items()
    }


def utility_ratio(
    matrices: Mapping[str, Mapping[str, Measured]],
    utility: Mapping[str, Mapping[str, Sequence[float]]],
    metric: str,
) -> float | None:
    """Returns U2R of one metric at the end of the run; None where the metric was not measured."""
    forget = [(row[0], row[-1]) for matrix in matrices.get(metric, {}).values() for row in matrix["values"]]
    kept = [(column[0], column[-1]) for column in utility.get(metric, {}).values()]
    return unlearning_to_utility_ratio(forget, kept)
