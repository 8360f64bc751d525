"""An evaluation as lines for the terminal and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from o3_lightning.metrics.registry import METRICS

__all__ = ["as_csv", "as_lines"]

COLUMNS = ("split", "metric", "aggregate", "low", "high", "interval", "count", "better")
Result = Mapping[str, Any]


def named_splits(result: Result) -> Iterator[tuple[str, str, Result]]:
    """Every split's name, kind and content."""
    for owner, splits in result["requests"].items():
        for split, part in splits.items():
            yield f"{owner}/{split}", "forget", part
    for split, part in result["utility"].items():
        yield split, "keep", part


def as_csv(result: Result) -> str:
    """Returns a line a split and metric: mean, 95 % interval, examples that count, which way is better."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, kind, part in named_splits(result):
        for metric, value in part["aggregate"].items():
            low, high, method = part["intervals"][metric]
            count = sum(item is not None for item in part["values"][metric])
            better = METRICS[metric].forget if kind == "forget" else METRICS[metric].keep
            writer.writerow([name, metric, value, low, high, method, count, better or ""])
    return buffer.getvalue()


def as_lines(result: Result) -> list[str]:
    """Returns one line a split: its name and the mean of each metric."""
    rows = [(name, part["aggregate"]) for name, _, part in named_splits(result)]
    width = max(len(name) for name, _ in rows)
    return [
        f"{name:<{width}}  " + "  ".join(f"{metric} {value:.3f}" for metric, value in aggregate.items())
        for name, aggregate in rows
    ]
