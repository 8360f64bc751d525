"""The summary at the top of the page: forget, utility, persistence, gate, cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from o3_lightning.common.plain import mean_of
from o3_lightning.reporting.blocks import Card
from o3_lightning.reporting.formatting import (
    DASH,
    OWN_SPLITS,
    fraction,
    is_number,
    mebibytes,
    name_of,
    number,
    percent,
    seconds,
)

__all__ = ["main_metric", "summary_cards"]

Metrics = Mapping[str, Any]
MAIN_METRICS = ("accuracy", "rouge_l_recall", "probability")  # the more, the more is still known


def summary_cards(metrics: Metrics) -> list[Card]:
    """Returns the five cards of the summary; what was not measured is a dash.

    Args:
        metrics: in the form of `metrics.json`.
    """
    parts = (forget_card, utility_card, persistence_card, gate_card, cost_card)
    return [measured_lines(part(metrics)) for part in parts]


def measured_lines(card: Card) -> Card:
    """The card without the lines that were not measured."""
    return replace(card, lines=[line for line in card.lines if line[1] != DASH])


def main_metric(matrices: Mapping[str, Any]) -> str:
    """Returns the metric that the summary speaks of: accuracy where it was measured."""
    return next((name for name in (*MAIN_METRICS, *matrices) if name in matrices), MAIN_METRICS[0])


def forget_card(metrics: Metrics) -> Card:
    """What the model still knows at the end."""
    matrices = metrics.get("persistence") or {}
    metric = main_metric(matrices)
    splits = matrices.get(metric) or {}
    ends = {split: mean_of(row[-1] for row in matrix["values"] if row) for split, matrix in splits.items()}
    starts = mean_of(row[0] for matrix in splits.values() for row in matrix["values"] if row)
    value = ends.get("seen", next(iter(ends.values()), None))
    lines = [(name_of(split), percent(end)) for split, end in ends.items()]
    lines.append(("Base model", percent(starts)))
    return Card(
        "Forget", percent(value), f"{name_of(metric)} on forget prompts after the last request", lines
    )


def utility_card(metrics: Metrics) -> Card:
    """What the model kept of the rest, relative to the base model."""
    series = metrics.get("utility") or {}
    kept = {split: relative(column) for split, column in series.items()}
    lines = [(name_of(split), percent(share)) for split, share in kept.items()]
    lines.append(("Drop ratio (U2R)", number(metrics.get("u2r"))))
    sentence = "of the base model's value kept on everything else, mean over splits"
    return Card("Utility", percent(mean_of(kept.values())), sentence, lines)


def relative(column: Any) -> float | None:
    """The last value as a share of the first; None where there is none."""
    if not column or not is_number(column[0]) or not is_number(column[-1]) or not column[0]:
        return None
    return float(column[-1]) / float(column[0])


def persistence_card(metrics: Metrics) -> Card:
    """Whether forgotten answers came back."""
    transfers = metrics.get("backward_transfer") or {}
    splits = transfers.get(main_metric(transfers)) or {}
    worst = max((value for value in splits.values() if is_number(value)), default=None)
    lines = [(name_of(split), percent(value, sign=True)) for split, value in splits.items()]
    sentence = "change of earlier requests from their own unlearning to the end (plus: answers came back)"
    return Card("Persistence", percent(worst, sign=True), sentence, lines)


def outside_rows(metrics: Metrics, *, own: bool) -> Iterator[Mapping[str, Any]]:
    """The detector rows of the requests' own splits, or of all others."""
    for splits in (metrics.get("detector") or {}).values():
        yield from (row for split, row in splits.items() if (split in OWN_SPLITS) == own)


def gate_card(metrics: Metrics) -> Card:
    """How well the gate tells forget prompts from the rest."""
    areas = [row.get("auroc") for row in outside_rows(metrics, own=False)]
    lowest = min((value for value in areas if is_number(value)), default=None)
    inside = mean_of(row.get("mean_weight") for row in outside_rows(metrics, own=True))
    outside = [row.get("mean_weight") for row in outside_rows(metrics, own=False)]
    highest = max((value for value in outside if is_number(value)), default=None)
    lines = [("Mean weight inside", fraction(inside)), ("Highest outside", fraction(highest))]
    return Card("Gate", fraction(lowest), "lowest AUROC of a detector against another split", lines)


def cost_card(metrics: Metrics) -> Card:
    """What the run took."""
    times = [value for value in (metrics.get("seconds") or {}).values() if is_number(value)]
    total = sum(times) if times else None
    lines = [("Peak memory", mebibytes(metrics.get("peak_memory_mib")))]
    if metrics.get("requests"):
        share = total / len(metrics["requests"]) if total is not None else None
        lines.append(("Per request", seconds(share)))
    return Card("Cost", seconds(total), "in all stages together, evaluation included", lines)
