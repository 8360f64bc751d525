"""The numbers of a run as one long table, for spreadsheets and plotting."""

from collections.abc import Iterator, Mapping
from typing import Any

from o3_lightning.common.files import csv_text

COLUMNS = ("kind", "request", "split", "metric", "column", "value", "low", "high")
Row = tuple[str, str, str, str, str, float | None, float | None, float | None]


def long_form(metrics: Mapping[str, Any]) -> str:
    """Returns `rows_of` as CSV text with a header; empty cells where there is no value."""
    return csv_text(COLUMNS, rows_of(metrics))


def rows_of(metrics: Mapping[str, Any]) -> Iterator[Row]:
    """Yields every number of a run's `metrics.json`.

    Yields:
        `COLUMNS`: `kind` ("forget", "utility", "detector", "run"), `request`, `split`, `metric`, `column`
        (state of the model: "base" or the last unlearned request), `value`, and `low` and `high`, the ends
        of its 95 % interval; empty or None where it does not apply or was not measured.
    """
    columns = metrics["columns"]
    for metric, splits in metrics["persistence"].items():
        for split, matrix in splits.items():
            for request, values in zip(matrix["rows"], matrix["values"], strict=True):
                ends = ends_of(metrics, request, split, metric)
                for column, value, (low, high) in zip(matrix["columns"], values, ends, strict=True):
                    yield ("forget", request, split, metric, column, value, low, high)
    for metric, splits in metrics["utility_metrics"].items():
        for split, values in splits.items():
            ends = ends_of(metrics, "utility", split, metric)
            for column, value, (low, high) in zip(columns, values, ends, strict=True):
                yield ("utility", "", split, metric, column, value, low, high)
    for request, splits in metrics["detector"].items():
        for split, numbers in splits.items():
            for metric, value in numbers.items():
                yield ("detector", request, split, metric, columns[-1], value, None, None)
    yield ("run", "", "", "u2r", columns[-1], metrics["u2r"], None, None)
    yield ("run", "", "", "peak_memory_mib", "", metrics["peak_memory_mib"], None, None)
    for stage, seconds in metrics["seconds"].items():
        yield ("run", "", stage, "seconds", "", seconds, None, None)


def ends_of(metrics: Mapping[str, Any], owner: str, split: str, metric: str) -> list[Any]:
    """The interval of one number in every column."""
    known = metrics.get("intervals", {}).get(owner, {}).get(split, {}).get(metric)
    return [pair or (None, None) for pair in known or [None] * len(metrics["columns"])]
