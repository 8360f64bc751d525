"""The plane of forgetting and keeping: where each model stands, with its interval on both sides."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from o3_lightning.evaluation.plane import Place
from o3_lightning.reporting.blocks import Chart, Grid, Section, Table
from o3_lightning.reporting.formatting import fraction
from o3_lightning.reporting.svg import (
    CHARACTER,
    HEIGHT,
    WIDTH,
    Frame,
    axes,
    coordinate,
    nice_ticks,
    picture,
    series_index,
)

__all__ = ["plane_chart", "plane_section"]

MARGIN = 0.04  # of the unit square, so that points at 0 and 1 are whole
LINE, OFFSET = 13, 6  # of a label: its height, and how far right of its point it begins
NEAR = 12  # units of the picture within which points share one label
LABEL = Markup('<text class="label" x="{}" y="{}">{}</text>')
CROSS = Markup(
    '<g><title>{title}</title><path class="line s{series}" d="M{left} {y}H{right}M{x} {top}V{bottom}"/>'
    '<circle class="d{series}" cx="{x}" cy="{y}" r="4"/></g>'
)


def plane_chart(places: Mapping[str, Place]) -> Chart:
    """Returns the picture: one numbered cross a model, its arms the 95 % intervals.

    Args:
        places: by name in the order of the colours, results of `place_on_plane` with both sides.
    """
    frame = Frame((-MARGIN, 1 + MARGIN), (-MARGIN, 1 + MARGIN))
    ticks = [(value, f"{value:g}") for value in nice_ticks(0.0, 1.0)]
    crosses = [cross(frame, name, place, i) for i, (name, place) in enumerate(places.items())]
    grid = axes(frame, ticks, ticks, "accuracy on what is forgotten", "accuracy on the rest")
    described = "; ".join(title_of(name, place) for name, place in places.items())
    return Chart(
        "",
        picture(grid + Markup("").join(crosses) + labels(frame, places), WIDTH, HEIGHT, described),
        [(series_index(i), name) for i, name in enumerate(numbered(places))],
    )


def numbered(places: Mapping[str, Place]) -> list[str]:
    """The names with the numbers that stand beside their points."""
    return [f"{number} {name}" for number, name in enumerate(places, start=1)]


def labels(frame: Frame, places: Mapping[str, Place]) -> Markup:
    """The numbers of the models, those of points close together as one label."""
    groups: list[tuple[float, float, list[str]]] = []
    for number, place in enumerate(places.values(), start=1):
        x, y = frame.across(place["forget"]["value"]), frame.upward(place["utility"]["value"])
        near = (group for group in groups if max(abs(group[0] - x), abs(group[1] - y)) < NEAR)
        group = next(near, None)
        if group is None:
            groups.append((x, y, [str(number)]))
        else:
            group[2].append(str(number))
    texts: list[tuple[float, float, str]] = []
    for x, y, numbers in groups:
        text = ", ".join(numbers)
        left = min(x + OFFSET, WIDTH - CHARACTER * len(text))
        below = y + LINE
        while any(overlap((left, below, text), other) for other in texts):
            below += LINE
        texts.append((left, below, text))
    return Markup("").join(LABEL.format(coordinate(x), coordinate(y), text) for x, y, text in texts)


def overlap(one: tuple[float, float, str], other: tuple[float, float, str]) -> bool:
    """Whether two labels, each its left end, its line and its text, stand on each other."""
    first, second = sorted((one, other))
    return abs(one[1] - other[1]) < LINE and first[0] + CHARACTER * (len(first[2]) + 1) > second[0]


def cross(frame: Frame, name: str, place: Place, series: int) -> Markup:
    """One model's point and intervals."""
    forget, utility = place["forget"], place["utility"]
    return CROSS.format(
        title=title_of(name, place),
        series=series_index(series),
        x=coordinate(frame.across(forget["value"])),
        y=coordinate(frame.upward(utility["value"])),
        left=coordinate(frame.across(forget["low"])),
        right=coordinate(frame.across(forget["high"])),
        bottom=coordinate(frame.upward(utility["low"])),
        top=coordinate(frame.upward(utility["high"])),
    )


def title_of(name: str, place: Place) -> str:
    """A model's numbers in words."""
    parts = (
        f"{label} {fraction(side['value'])} ({fraction(side['low'])} to {fraction(side['high'])})"
        for label, side in (("forgotten", place["forget"]), ("rest", place["utility"]))
    )
    return f"{name}: {', '.join(parts)}"


def plane_table(places: Mapping[str, Place]) -> Table:
    """The same numbers to read."""
    rows = [
        [name, side_text(place["forget"]), side_text(place["utility"])]
        for name, place in zip(numbered(places), places.values(), strict=True)
    ]
    return Table("", ["Model", "Forgotten", "Rest"], rows)


def side_text(side: Mapping[str, float]) -> str:
    """A value and its interval."""
    return f"{fraction(side['value'])} ({fraction(side['low'])}–{fraction(side['high'])})"


def plane_section(places: Mapping[str, Place]) -> Section:
    """Returns the plane as a part of the page; models that lack a side are left out."""
    whole = {name: place for name, place in places.items() if {"forget", "utility"} <= set(place)}
    return Section(
        "plane",
        "Forgetting and keeping",
        "Left is forgotten, up is kept: the upper left corner is where unlearning wants to be. Across is the "
        "accuracy on held-out prompts of all requests, upward that on all utility splits, rows pooled; the "
        "arms are 95 % intervals over the rows.",
        [Grid([plane_chart(whole), plane_table(whole)])] if whole else [],
        "The run measured no accuracy on both sides.",
    )
