"""How the adapters were trained and whether they keep out of each other's way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from o3_lightning.reporting.blocks import Block, Chart, Fold, Grid, Heat, Section, Table, side_by_side
from o3_lightning.reporting.formatting import fraction, is_number, name_of, number
from o3_lightning.reporting.outcome import heat_cell
from o3_lightning.reporting.pictures import line_chart

__all__ = ["curves_section", "overlaps_section"]

STEP = "step"
OVERLAPS = {
    "row_overlap": "mean squared cosine between the spaces they read, 0 to 1; 0 is orthogonal",
    "column_overlap": "mean squared cosine between the spaces they write, 0 to 1; 0 is orthogonal",
    "row_angle": "smallest angle between the spaces they read, in degrees; 90 is orthogonal",
    "column_angle": "smallest angle between the spaces they write, in degrees; 90 is orthogonal",
    "update_cosine": "cosine of the two weight updates, −1 to 1; coloured by its size",
    "interference": "how far the column's adapter moves the next token at the row's prompts, KL in nats",
}
RIGHT_ANGLE = 90.0
LIMITS = {"row_angle": RIGHT_ANGLE, "column_angle": RIGHT_ANGLE}


def curves_section(
    curves: Mapping[str, Sequence[Mapping[str, float]]], adapters: Mapping[str, Any]
) -> Section:
    """Returns one picture per loss with a line per request, and what training ended with.

    Args:
        curves: `[request]` = losses by name per step.
        adapters: `[request]` = numbers about its training; may be empty.
    """
    names = list(
        dict.fromkeys(key for steps in curves.values() for step in steps for key in step if key != STEP)
    )
    charts = [chart for name in names if (chart := loss_chart(name, curves))]
    blocks: list[Block] = [Grid(charts)] if charts else []
    if any(adapters.values()):
        blocks.append(Fold("What each training ended with", [adapter_table(adapters)]))
    return Section(
        "training",
        "Training curves",
        "One picture per loss, one line per request, over the optimiser's steps; long curves are averaged "
        "over neighbouring steps.",
        blocks,
        "No training curve was kept.",
    )


def loss_chart(name: str, curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Chart | None:
    """The lines of one loss; None where no step has it."""
    lines = {
        request: [
            (float(step.get(STEP, count)), float(step[name]))
            for count, step in enumerate(steps, start=1)
            if is_number(step.get(name)) and is_number(step.get(STEP, count))
        ]
        for request, steps in curves.items()
    }
    if not any(lines.values()):
        return None
    return line_chart(
        name_of(name),
        lines,
        x_label="step",
        y_label=name_of(name),
        description=f"{name_of(name)} over the steps of training",
    )


def adapter_table(adapters: Mapping[str, Mapping[str, Any]]) -> Table:
    """The numbers of each request's training."""
    keys = list(dict.fromkeys(key for row in adapters.values() for key in row))
    rows = [[request, *(number(row.get(key)) for key in keys)] for request, row in adapters.items()]
    return Table("Losses as trained, times in seconds", ["Request", *(name_of(key) for key in keys)], rows)


def overlaps_section(overlaps: Mapping[str, Mapping[str, Any]]) -> Section:
    """Returns one matrix per measure.

    Args:
        overlaps: by name, "rows" and "values".
    """
    maps = [overlap_map(name, matrix) for name, matrix in overlaps.items() if matrix["values"]]
    return Section(
        "overlaps",
        "Overlap of the adapters",
        "Each cell compares the row's request with the column's; off the diagonal, orthogonal adapters have "
        "overlap 0, angle 90 degrees and cosine 0.",
        side_by_side(maps),
        "There is no overlap between adapters to show.",
    )


def overlap_map(name: str, matrix: Mapping[str, Any]) -> Heat:
    """The matrix of one measure."""
    names = [str(row) for row in matrix["rows"]]
    sizes = [abs(value) for row in matrix["values"] for value in row if is_number(value)]
    limits = (0.0, LIMITS.get(name, max([1.0, *sizes])))
    rows = []
    for row, values in zip(names, matrix["values"], strict=True):
        cells = []
        for column, value in zip(names, values, strict=True):
            size = abs(value) if is_number(value) else None
            cell = heat_cell(size, limits, False, f"{row}, {column}: {fraction(value)}")
            cells.append(type(cell)(fraction(value), cell.step, title=cell.title))
        rows.append((row, cells))
    return Heat(name_of(name), names, rows, OVERLAPS.get(name, ""))
