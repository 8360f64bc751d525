"""An evaluation as lines for the terminal and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from o3_lightning.metrics.choice import unparseable
from o3_lightning.metrics.registry import METRICS

__all__ = ["as_csv", "as_lines"]

COLUMNS = ("split", "metric", "aggregate", "low", "high", "interval", "count", "unreadable", "better")
Result = Mapping[str, Any]


def named_splits(result: Result) -> Iterator[tuple[str, str, Result]]:
    """Every split's name, kind and content."""
    for owner, splits in result["requests"].items():
        for split, part in splits.items():
            yield f"{owner}/{split}", "forget", part
    for split, part in result["utility"].items():
        yield split, "keep", part


def as_csv(result: Result) -> str:
    """Returns a line a split and metric: mean, 95 % interval, examples that count, which way is better.

    Unreadable are the examples of which the metric cannot judge; where it judges none the mean is empty.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, kind, part in named_splits(result):
        for metric, column in part["values"].items():
            low, high, method = part["intervals"].get(metric, ("", "", ""))
            unread = unparseable(column)
            better = METRICS[metric].forget if kind == "forget" else METRICS[metric].keep
            numbers = [part["aggregate"].get(metric, ""), low, high, method, len(column) - unread, unread]
            writer.writerow([name, metric, *numbers, better or ""])
    return buffer.getvalue()


def as_lines(result: Result) -> list[str]:
    """Returns one line a split: its name and the mean of each metric."""
    rows = [(name, part) for name, _, part in named_splits(result)]
    width = max(len(name) for name, _ in rows)
    return [
        f"{name:<{width}}  " + "  ".join(cell_of(part, metric) for metric in part["values"])
        for name, part in rows
    ]


def cell_of(part: Result, metric: str) -> str:
    """A metric's mean, and how many answers it could not read."""
    unread, value = unparseable(part["values"][metric]), part["aggregate"].get(metric)
    told = f"{metric} {'-' if value is None else f'{value:.3f}'}"
    return f"{told} ({unread} of {part['count']} unreadable)" if unread else told
