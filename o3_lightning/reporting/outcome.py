"""Sections with pictures: the plane, persistence, utility, training curves, overlap of the adapters."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from o3_lightning.evaluation.figures import Place
from o3_lightning.metrics.registry import METRICS
from o3_lightning.reporting.blocks import (
    Block,
    Cell,
    Chart,
    Fold,
    Grid,
    Heat,
    Section,
    Table,
    heat_cell,
    section,
    side_by_side,
)
from o3_lightning.reporting.cards import main_metric
from o3_lightning.reporting.formatting import TEXTS, fraction, is_number, name_of, number
from o3_lightning.reporting.pictures import interval_text, line_chart, numbered, plane_chart

Metrics = Mapping[str, Any]
Counts = Mapping[str, Any]  # "count" of answers that were not read, per column, of so many "rows"


def plane_section(places: Mapping[str, Place]) -> Section:
    """Returns the plane of forgetting and utility; models that lack a side are left out."""
    whole = {name: place for name, place in places.items() if {"forget", "utility"} <= set(place)}
    return section("plane", [Grid([plane_chart(whole), plane_table(whole)])] if whole else [])


def plane_table(places: Mapping[str, Place]) -> Table:
    """The numbers of the plane."""
    rows = [
        [name, interval_text(place["forget"]), interval_text(place["utility"])]
        for name, place in zip(numbered(places), places.values(), strict=True)
    ]
    return Table("", ["Model", "Forgotten", "Rest"], rows)


def persistence_section(metrics: Metrics) -> Section:
    """Returns the heat maps, the main metric's open and the others' folded."""
    matrices = metrics.get("persistence") or {}
    main = main_metric(matrices)
    folds = [
        Fold(
            name_of(metric),
            side_by_side(
                [persistence_map(split, matrix, unread(metrics, metric)) for split, matrix in splits.items()]
            ),
            open=metric == main,
            note=sentence_of(metric),
        )
        for metric, splits in sorted(matrices.items(), key=lambda item: item[0] != main)
    ]
    return section("persistence", [*folds, *unreadable_fold(metrics)])


def columns_of(metrics: Metrics) -> list[str]:
    """The states of the model: the base model, then after each request."""
    return ["base", *(str(name) for name in metrics.get("requests") or ())]


def unreadable_fold(metrics: Metrics) -> list[Fold]:
    """The number of answers without a value, in every column; nothing where all have one."""
    rows = [
        [f"{owner}, {name_of(split).lower()}", name_of(metric), str(part["rows"]), *map(str, part["count"])]
        for owner, splits in (metrics.get("unreadable") or {}).items()
        for split, parts in splits.items()
        for metric, part in parts.items()
    ]
    note = (
        "answers that name no option or several, and truths without a word, count neither as known nor as "
        "forgotten"
    )
    table = Table("", ["Split", "Metric", "Rows", *columns_of(metrics)], rows)
    return [Fold("Unreadable answers", [table], open=True, note=note)] if rows else []


def unread(metrics: Metrics, metric: str) -> dict[tuple[str, str], Counts]:
    """The answers that a metric could not read, by owner (a request, or "utility") and split."""
    return {
        (owner, split): parts[metric]
        for owner, splits in (metrics.get("unreadable") or {}).items()
        for split, parts in splits.items()
        if metric in parts
    }


def with_unread(text: str, part: Counts | None, column: int) -> str:
    """Returns a value's text, which says so where the metric could not read all of the answers.

    Example:
        >>> with_unread("0.500", {"count": [0, 1, 2], "rows": 2}, 1)
        '0.500 (1 of 2 unreadable)'
        >>> with_unread("–", {"count": [0, 1, 2], "rows": 2}, 2)
        'unreadable'
    """
    lost = part["count"][column] if part else 0
    if not part or not lost:
        return text
    return "unreadable" if lost == part["rows"] else f"{text} ({lost} of {part['rows']} unreadable)"


def persistence_map(split: str, matrix: Mapping[str, Any], lost: Mapping[tuple[str, str], Counts]) -> Heat:
    """The heat map of one metric on one split; its cells say where answers could not be read."""
    limits, columns = scale_limits([value for row in matrix["values"] for value in row]), matrix["columns"]
    rows = [
        (
            name,
            [
                replace(cell, text=with_unread(cell.text, lost.get((name, split)), column))
                for column, cell in enumerate(cells)
            ],
        )
        for name, cells in heat_rows(matrix, columns, limits, split)
    ]
    return Heat(name_of(split), list(map(str, columns)), rows)


def heat_rows(
    matrix: Mapping[str, Any], columns: Sequence[Any], limits: tuple[float, float], split: str = ""
) -> list[tuple[str, list[Cell]]]:
    """The cells of a matrix; a split's are marked where a request is unlearned, others are unsigned."""
    return [
        (
            str(row),
            [
                heat_cell(
                    value,
                    ", ".join(filter(None, (str(row), split, str(column)))),
                    limits,
                    marked=bool(split) and column == row,
                    signed=bool(split),
                )
                for column, value in zip(columns, values, strict=True)
            ],
        )
        for row, values in zip(matrix["rows"], matrix["values"], strict=True)
    ]


def scale_limits(values: Sequence[Any]) -> tuple[float, float]:
    """0 and 1, extended to the range of the values."""
    numbers = [float(value) for value in values if is_number(value)]
    return min([0.0, *numbers]), max([1.0, *numbers])


def sentence_of(metric: str) -> str:
    """What a metric measures, and its better direction."""
    if metric not in METRICS:
        return ""
    found = METRICS[metric]
    return found.meaning + (f"; on forget prompts {found.forget} is better" if found.forget else "")


def utility_section(metrics: Metrics) -> Section:
    """Returns one picture per metric and the numbers behind it."""
    series = metrics.get("utility_metrics") or {}
    if not series and metrics.get("utility"):
        series = {"accuracy": metrics["utility"]}
    columns = columns_of(metrics)
    charts = [chart for name, splits in series.items() if (chart := utility_chart(name, splits, columns))]
    tables = []
    for metric, splits in series.items():
        tables.append(utility_table(metric, splits, unread(metrics, metric), columns))
    blocks: list[Block] = [Grid(charts), Fold("The numbers", tables)] if charts else []
    return section("utility", [*blocks, *official_fold(metrics)])


def official_fold(metrics: Metrics) -> list[Fold]:
    """The accuracies of O3's tables after each request; nothing where they were not measured."""
    series = metrics.get("official") or []
    if not series:
        return []
    titles = {
        "seen": "Forget prompts (S.U.)",
        "held_out": "Their test rows (D.U.)",
        "retained": "Kept (R.D.)",
    }
    measured = {name for name, pair in series[0].items() if name != "u2r" and None not in pair}
    names = [name for name in (*titles, *sorted(measured - titles.keys())) if name in measured]
    rows = [
        [
            request,
            *(" → ".join(map(fraction, row[name])) for name in names),
            "–" if row["u2r"] is None else f"{row['u2r']:.1f}",
        ]
        for request, row in zip(metrics["requests"], series, strict=True)
    ]
    table = Table("", ["After", *(titles.get(name, name_of(name)) for name in names), "U2R"], rows)
    note = (
        "accuracy of the base model → now, pooled over the requests so far; an answer that names no option "
        "is wrong, as in O3's tables"
    )
    return [Fold("O3's accuracies", [table], note=note)]


def utility_table(
    metric: str,
    splits: Mapping[str, Sequence[Any]],
    lost: Mapping[tuple[str, str], Counts],
    columns: Sequence[str],
) -> Table:
    """The numbers of one metric; a split without a value in some column says where it was not readable."""
    names = [*splits, *(split for owner, split in lost if owner == "utility" and split not in splits)]
    rows = [
        [
            name_of(split),
            *(
                with_unread(fraction(value), lost.get(("utility", split)), column)
                for column, value in enumerate(splits.get(split, [None] * len(columns)))
            ),
        ]
        for split in names
    ]
    return Table(name_of(metric), ["Split", *columns], rows, sentence_of(metric))


def utility_chart(metric: str, splits: Mapping[str, Sequence[Any]], columns: Sequence[str]) -> Chart | None:
    """The lines of one metric; None where nothing was measured."""
    lines = {
        name_of(split): [
            (float(place), float(value)) for place, value in enumerate(column) if is_number(value)
        ]
        for split, column in splits.items()
    }
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return None
    # metrics with a better direction are in [0, 1]
    is_fraction = metric not in METRICS or METRICS[metric].keep is not None
    return line_chart(
        name_of(metric),
        lines,
        x_label="model after request",
        y_label=f"{name_of(metric)} (fraction)" if is_fraction else name_of(metric),
        description=f"{name_of(metric)} of each utility split over the requests",
        columns=columns,
        y_limits=scale_limits([value for points in lines.values() for _, value in points]),
    )


STEP = "step"
RIGHT_ANGLE = 90.0
LIMITS = {"row_angle": RIGHT_ANGLE, "column_angle": RIGHT_ANGLE}


def curves_section(
    curves: Mapping[str, Sequence[Mapping[str, float]]], adapters: Mapping[str, Any]
) -> Section:
    """Returns one picture per loss with a line per request, and the final numbers of each training."""
    names = dict.fromkeys(key for steps in curves.values() for step in steps for key in step if key != STEP)
    charts = [chart for name in names if (chart := loss_chart(name, curves))]
    blocks: list[Block] = [Grid(charts)] if charts else []
    if any(adapters.values()):
        keys = list(dict.fromkeys(key for row in adapters.values() for key in row))
        rows = [[request, *(number(row.get(key)) for key in keys)] for request, row in adapters.items()]
        columns = ["Request", *(name_of(key) for key in keys)]
        table = Table("Losses as trained, times in seconds", columns, rows)
        blocks.append(Fold("At the end of each training", [table]))
    return section("training", blocks)


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


def overlaps_section(overlaps: Mapping[str, Mapping[str, Any]]) -> Section:
    """Returns one matrix per measure, which has "rows" and "values"."""
    maps = [overlap_map(name, matrix) for name, matrix in overlaps.items() if matrix["values"]]
    return section("overlaps", side_by_side(maps))


def overlap_map(name: str, matrix: Mapping[str, Any]) -> Heat:
    """The matrix of one measure, coloured by absolute value."""
    sizes = [abs(value) for row in matrix["values"] for value in row if is_number(value)]
    limits, names = (0.0, LIMITS.get(name, max([1.0, *sizes]))), matrix["rows"]
    cells = heat_rows(matrix, names, limits)
    return Heat(name_of(name), list(map(str, names)), cells, TEXTS["overlaps"].get(name, ""))
