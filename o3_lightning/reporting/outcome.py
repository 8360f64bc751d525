"""Outcome of a run: the plane of forgetting and utility, persistence heat maps, utility over the requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from o3_lightning.evaluation.combined import Place
from o3_lightning.metrics.registry import METRICS
from o3_lightning.reporting.blocks import Block, Cell, Chart, Fold, Grid, Heat, Section, Table, side_by_side
from o3_lightning.reporting.cards import main_metric
from o3_lightning.reporting.colours import heat_step
from o3_lightning.reporting.formatting import METRIC_SENTENCES, fraction, is_number, name_of
from o3_lightning.reporting.pictures import line_chart, numbered, plane_chart

__all__ = ["persistence_section", "plane_section", "utility_section"]

Metrics = Mapping[str, Any]
ENDS, SIDE = ("value", "low", "high"), "{} ({}–{})"


def plane_section(places: Mapping[str, Place]) -> Section:
    """Returns the plane of forgetting and utility; models that lack a side are left out."""
    whole = {name: place for name, place in places.items() if {"forget", "utility"} <= set(place)}
    return Section(
        "plane",
        "Forgetting and keeping",
        "Left is forgotten, up is kept: unlearning aims at the upper left corner. The horizontal axis is the "
        "accuracy on held-out prompts of all requests, the vertical axis that on all utility splits, rows "
        "pooled; the arms of a point are 95 % intervals over the rows.",
        [Grid([plane_chart(whole), plane_table(whole)])] if whole else [],
        "The run measured no accuracy on both sides.",
    )


def plane_table(places: Mapping[str, Place]) -> Table:
    """The numbers of the plane."""
    rows = [
        [
            name,
            *(SIDE.format(*(fraction(place[side][key]) for key in ENDS)) for side in ("forget", "utility")),
        ]
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
            side_by_side([persistence_map(split, matrix) for split, matrix in splits.items()]),
            open=metric == main,
            note=sentence_of(metric),
        )
        for metric, splits in sorted(matrices.items(), key=lambda item: item[0] != main)
    ]
    folds += unreadable_fold(metrics)
    return Section(
        "persistence",
        "Persistence",
        "Each row is one request, each column the model after one more request. Right of the bold line the "
        "request has been unlearned: forgetting lasts where a row stays as it was just right of the line. "
        "Seen are the forget prompts, held-out are paraphrases and unseen prompts of the same knowledge. "
        "The stronger the colour, the higher the number.",
        folds,
        "The run measured no request, so there is no persistence to show.",
    )


def unreadable_fold(metrics: Metrics) -> list[Fold]:
    """How many answers a metric could not judge, in every column; nothing where it judged all."""
    columns = ["base", *(str(name) for name in metrics.get("requests") or ())]
    rows = [
        [f"{owner}, {name_of(split).lower()}", name_of(metric), str(part["rows"]), *map(str, part["count"])]
        for owner, splits in (metrics.get("unreadable") or {}).items()
        for split, parts in splits.items()
        for metric, part in parts.items()
    ]
    note = (
        "answers that name no option, or several, and truths in letters that ROUGE does not read, count "
        "neither as known nor as forgotten"
    )
    table = Table("", ["Split", "Metric", "Rows", *columns], rows)
    return [Fold("Unreadable answers", [table], open=True, note=note)] if rows else []


def persistence_map(split: str, matrix: Mapping[str, Any]) -> Heat:
    """The heat map of one metric on one split."""
    columns = [str(name) for name in matrix["columns"]]
    limits = scale_limits([value for row in matrix["values"] for value in row])
    rows = []
    for name, values in zip(matrix["rows"], matrix["values"], strict=True):
        own = columns.index(name) if name in columns else len(columns)
        cells = [
            heat_cell(value, limits, place == own, f"{name}, {split}, {column}: {fraction(value)}")
            for place, (column, value) in enumerate(zip(columns, values, strict=True))
        ]
        rows.append((str(name), cells))
    return Heat(name_of(split), columns, rows)


def scale_limits(values: Sequence[Any]) -> tuple[float, float]:
    """0 and 1 where all values lie between, else their own range."""
    numbers = [float(value) for value in values if is_number(value)]
    return min([0.0, *numbers]), max([1.0, *numbers])


def heat_cell(value: Any, limits: tuple[float, float], marked: bool, title: str) -> Cell:
    """A number on the colour scale; without colour where it was not measured."""
    step = heat_step(float(value), *limits) if is_number(value) else None
    return Cell(fraction(value), step, marked, title)


def sentence_of(metric: str) -> str:
    """What a metric says, and which way is better."""
    if metric in METRIC_SENTENCES or metric not in METRICS:
        return METRIC_SENTENCES.get(metric, "")
    found = METRICS[metric]
    return found.meaning + (f"; on forget prompts {found.forget} is better" if found.forget else "")


def is_fraction(metric: str) -> bool:
    """Whether a metric lies in [0, 1]: all do that say by themselves which way is better."""
    return metric not in METRICS or METRICS[metric].keep is not None


def utility_section(metrics: Metrics) -> Section:
    """Returns one picture per metric and the numbers behind it."""
    series = metrics.get("utility_metrics") or {}
    if not series and metrics.get("utility"):
        series = {"accuracy": metrics["utility"]}
    columns = ["base", *(str(name) for name in metrics.get("requests") or ())]
    charts = [chart for name, splits in series.items() if (chart := utility_chart(name, splits, columns))]
    tables = [utility_table(name, splits, columns) for name, splits in series.items()]
    blocks: list[Block] = [Grid(charts), Fold("The numbers", tables)] if charts else []
    return Section(
        "utility",
        "Utility over requests",
        "What must not change: each line is one utility split, from the base model over each request. "
        "Level lines mean that nothing else was harmed; lines may cover each other, the numbers are below.",
        blocks,
        "The run had no utility split, so there is no utility to show.",
    )


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
    return line_chart(
        name_of(metric),
        lines,
        x_label="model after request",
        y_label=f"{name_of(metric)} (fraction)" if is_fraction(metric) else name_of(metric),
        description=f"{name_of(metric)} of each utility split over the requests",
        columns=columns,
        y_limits=scale_limits([value for points in lines.values() for _, value in points]),
    )


def utility_table(metric: str, splits: Mapping[str, Sequence[Any]], columns: Sequence[str]) -> Table:
    """The numbers of one metric."""
    rows = [[name_of(split), *(fraction(value) for value in column)] for split, column in splits.items()]
    return Table(name_of(metric), ["Split", *columns], rows, sentence_of(metric))
