"""Inline pictures as pure functions from numbers to SVG; colours come from the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from o3_lightning.reporting.colours import LINES

__all__ = ["Frame", "histogram_bars", "line_chart", "nice_ticks", "series_index"]

WIDTH, HEIGHT = 340, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 38
CHARACTER = 6.4  # width of a tick label's character, in units of the picture
HALF = 0.5
MOST_POINTS = 200
MARKERS_UP_TO = 24
Points = Sequence[tuple[float, float]]

GRID = Markup('<path class="rule" d="M{} {}H{}"/>')
Y_TICK = Markup('<text class="tick" x="{}" y="{}" text-anchor="end" dy=".32em">{}</text>')
X_TICK = Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>')
X_LABEL = Markup('<text class="label" x="{}" y="{}" text-anchor="middle">{}</text>')
Y_LABEL = Markup(
    '<text class="label" transform="translate(11 {}) rotate(-90)" text-anchor="middle">{}</text>'
)
LINE = Markup('<g><title>{}</title><polyline class="line s{}" points="{}"/>{}</g>')
DOT = Markup('<circle class="d{}" cx="{}" cy="{}" r="2.6"/>')
BAR = Markup('<rect class="bar" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>')
GROUND = Markup('<path class="axis" d="M0 {}H{}"/>')
PICTURE = Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}"{}>{}</svg>')
STRETCH = Markup(' preserveAspectRatio="none"')


@dataclass(frozen=True)
class Frame:
    """The plane of a picture: from values to places.

    Args:
        x: smallest and largest value across.
        y: smallest and largest value upward.
    """

    x: tuple[float, float]
    y: tuple[float, float]

    def across(self, value: float) -> float:
        """The place of a value across, in units of the picture."""
        return LEFT + (WIDTH - LEFT - RIGHT) * portion(value, self.x)

    def upward(self, value: float) -> float:
        """The place of a value upward, in units of the picture."""
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * portion(value, self.y)


def portion(value: float, limits: tuple[float, float]) -> float:
    """The share of the way from the smaller limit to the larger."""
    low, high = limits
    return (value - low) / (high - low) if high > low else 0.5


def series_index(place: int) -> int:
    """Returns which colour and dash a line takes; they repeat after 36."""
    return place % LINES


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns about `count` round numbers from at most `low` to at least `high`.

    Example:
        >>> nice_ticks(0.0, 0.93)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        low, high = low - 0.5, low + 0.5
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{place * step:.10g}") for place in range(first, last + 1)]


def coordinate(value: float) -> str:
    """A place with one decimal, so that pages stay small."""
    return f"{value:.1f}".removesuffix(".0")


def thin(points: Points, most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """Returns at most `most` points, each the mean of as many neighbours; few points stay as they are."""
    size = math.ceil(len(points) / most)
    if size <= 1:
        return list(points)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def axes(
    frame: Frame,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
    x_label: str,
    y_label: str,
) -> Markup:
    """Returns grid lines, tick labels and axis labels."""
    floor = HEIGHT - BOTTOM
    parts = [GRID.format(LEFT, coordinate(frame.upward(value)), WIDTH - RIGHT) for value, _ in y_ticks]
    parts += [Y_TICK.format(LEFT - 6, coordinate(frame.upward(value)), label) for value, label in y_ticks]
    parts += [X_TICK.format(coordinate(frame.across(value)), floor + 15, label) for value, label in x_ticks]
    parts.append(X_LABEL.format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, x_label))
    parts.append(Y_LABEL.format((TOP + floor) / 2, y_label))
    return Markup("").join(parts)


def line(frame: Frame, points: Points, series: int, name: str) -> Markup:
    """Returns one line, with a dot at each point where there are few."""
    places = [(coordinate(frame.across(x)), coordinate(frame.upward(y))) for x, y in thin(points)]
    few = places if len(places) <= MARKERS_UP_TO else []
    dots = Markup("").join(DOT.format(series, x, y) for x, y in few)
    return LINE.format(name, series, " ".join(f"{x},{y}" for x, y in places), dots)


def line_chart(
    series: Mapping[str, Points],
    *,
    x_label: str,
    y_label: str,
    description: str,
    columns: Sequence[str] = (),
    y_limits: tuple[float, float] | None = None,
) -> Markup:
    """Returns a picture of lines over one axis.

    Args:
        series: points by name, in the order of the colours; each has at least one.
        x_label: what goes across, with its unit.
        y_label: what goes upward, with its unit.
        description: read aloud in place of the picture.
        columns: names of x = 0, 1, ...; without them x is a number.
        y_limits: smallest and largest value upward; None takes them from the points.
    """
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    y_ticks = nice_ticks(*(y_limits or (min(0.0, *ys), max(ys))), count=4)
    if columns:
        x_limits, x_ticks = (-HALF, len(columns) - HALF), column_ticks(columns)
    else:
        x_limits, ticks = (min(xs), max(xs)), nice_ticks(min(xs), max(xs), count=4)
        x_ticks = [(value, f"{value:g}") for value in ticks if x_limits[0] <= value <= x_limits[1]]
    frame = Frame(x_limits, (y_ticks[0], y_ticks[-1]))
    drawn = [line(frame, points, series_index(i), name) for i, (name, points) in enumerate(series.items())]
    grid = axes(frame, x_ticks, [(value, f"{value:g}") for value in y_ticks], x_label, y_label)
    return picture(grid + Markup("").join(drawn), WIDTH, HEIGHT, description)


def column_ticks(columns: Sequence[str]) -> list[tuple[float, str]]:
    """Labels of named columns: shortened names where they fit, else places, not more than fit."""
    room = (WIDTH - LEFT - RIGHT) / len(columns) / CHARACTER - 1
    if max(len(name) for name in columns) <= room:
        return [(float(place), name) for place, name in enumerate(columns)]
    every = math.ceil(4 / max(room, 1))
    return [(float(place), str(place) if place else "base") for place in range(0, len(columns), every)]


def histogram_bars(counts: Sequence[int], names: Sequence[str], description: str) -> Markup:
    """Returns bars of a histogram without axes, as wide as its place; none where nothing was counted.

    Args:
        counts: prompts per bin.
        names: of the bins, for the pointer that rests on a bar.
        description: read aloud in place of the picture.
    """
    width, height, smallest = 10, 32, 1.5
    most, total, bars = max(counts, default=0), sum(counts), []
    for place, (count, name) in enumerate(zip(counts, names, strict=True)):
        if count:
            tall = max(count / most * height, smallest)
            top, title = coordinate(height - tall), f"{name}: {count} of {total}"
            bars.append(BAR.format(place * width + 1, top, width - 2, coordinate(tall), title))
    inner = Markup("").join([*bars, GROUND.format(height, width * len(counts))])
    return picture(inner, width * len(counts), height + 1, description, stretch=True)


def picture(inner: Markup, width: int, height: int, description: str, *, stretch: bool = False) -> Markup:
    """Wraps shapes as an inline SVG that is as wide as its place."""
    name, ratio = ("strip", STRETCH) if stretch else ("plot", "")
    return PICTURE.format(name, width, height, description, ratio, inner)
