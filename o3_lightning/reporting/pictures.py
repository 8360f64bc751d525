"""Charts as inline SVG: matplotlib draws them, the page's CSS gives fonts and colours.

Text stays text, equal input gives equal bytes, and a picture follows the light or dark theme of its page,
because each colour is replaced by a variable of `colours.palette_css`.
"""

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from o3_lightning.evaluation.figures import Place
from o3_lightning.reporting.blocks import Chart
from o3_lightning.reporting.colours import SERIES, line_style
from o3_lightning.reporting.formatting import fraction

WIDTH, HEIGHT, PER_INCH = 340, 200, 72  # of a chart, in pixels; matplotlib's SVG has 72 an inch
AREA = (46 / WIDTH, 38 / HEIGHT, 282 / WIDTH, 152 / HEIGHT)  # of the axes: left, bottom, width, height
LABEL_X = -35 / 282  # of the vertical axis' label, in widths of the axes
DOT = 3  # radius of a point, in pixels
MARKERS_UP_TO, MOST_POINTS = 24, 200  # points of a line that get a dot each; that are drawn at all
CHARACTERS = 44  # of tick labels that fit beside each other
NEAR, LINE, TURN = 0.035, 13, 0.8  # plane: distance of points that share a label; pixels of a label's line; x
# from which labels are left of their point
GRID = "#010203"  # placeholder of the colour of grid lines, replaced by a variable of the page
VARIABLES = {GRID: "var(--edge)"} | {c: f"var(--series-{i})" for i, c in enumerate(SERIES["light"])}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "o3-lightning",
    "text.parse_math": False,
    "font.size": 11,
    "lines.scale_dashes": False,
}
Points = Sequence[tuple[float, float]]


def line_chart(
    caption: str,
    lines: Mapping[str, Points],
    *,
    x_label: str,
    y_label: str,
    description: str,
    columns: Sequence[str] = (),
    y_limits: tuple[float, float] | None = None,
) -> Chart:
    """Returns a chart of lines with its legend.

    Args:
        caption: title above the picture.
        lines: points by name, in the order of the colours; lines without points are left out, but one has
            some.
        x_label: quantity of the horizontal axis, with its unit.
        y_label: quantity of the vertical axis, with its unit.
        description: text alternative of the picture.
        columns: names of x = 0, 1, ...; without them x is a number.
        y_limits: range of the vertical axis; None for the range of the points and 0.
    """
    values = [y for points in lines.values() for _, y in points]
    with rc_context(STYLE):
        axes = new_axes(x_label, y_label)
        for series, (name, points) in enumerate(lines.items()):
            drawn = thin(points)
            marker = "o" if len(drawn) <= MARKERS_UP_TO else ""
            add_line(axes, series, name, [x for x, _ in drawn], [y for _, y in drawn], marker=marker)
        ticks = MaxNLocator(4).tick_values(*(y_limits or (min(0.0, *values), max(values))))
        axes.set(ylim=(ticks[0], ticks[-1]), yticks=ticks)
        if columns:
            positions, names = zip(*column_ticks(columns), strict=True)
            axes.set(xlim=(-0.5, len(columns) - 0.5), xticks=positions, xticklabels=names)
        else:
            axes.margins(x=0)
            axes.xaxis.set_major_locator(MaxNLocator(4))
        picture = inline_svg(axes.figure, description)
    return Chart(caption, picture, legend([name if points else "" for name, points in lines.items()]))


def plane_chart(places: Mapping[str, Place]) -> Chart:
    """Returns the plane of forgetting and utility: one numbered point per model with its 95 % intervals."""
    ticks = [tick / 5 for tick in range(6)]
    with rc_context(STYLE):
        axes = new_axes("accuracy on what is forgotten", "accuracy on the rest")
        axes.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), xticks=ticks, yticks=ticks)
        for series, (name, place) in enumerate(places.items()):
            forget, rest = place["forget"], place["utility"]
            x, y = forget["value"], rest["value"]
            across = [forget["low"], x, forget["high"], math.nan, x, x]
            upward = [y, y, y, math.nan, rest["low"], rest["high"]]
            title = f"{name}: forgotten {interval_text(forget)}, rest {interval_text(rest)}"
            add_line(axes, series, title, across, upward, marker="o", markevery=[1])
        number_points(
            axes, [(place["forget"]["value"], place["utility"]["value"]) for place in places.values()]
        )
        picture = inline_svg(axes.figure, "; ".join(line.get_gid() for line in axes.lines))
    return Chart("", picture, legend(numbered(places)))


def numbered(names: Iterable[str]) -> list[str]:
    """Returns names with the numbers of their points."""
    return [f"{number} {name}" for number, name in enumerate(names, start=1)]


def interval_text(side: Mapping[str, float]) -> str:
    """Returns a value with its interval."""
    return f"{fraction(side['value'])} ({fraction(side['low'])}–{fraction(side['high'])})"


def number_points(axes: Any, points: Points) -> None:
    """Writes the number of each point beside it; close points share a label, and labels do not overlap."""
    groups: dict[tuple[float, float], list[str]] = {}
    for number, (x, y) in enumerate(points, start=1):
        near = (group for group in groups if max(abs(group[0] - x), abs(group[1] - y)) < NEAR)
        groups.setdefault(next(near, (x, y)), []).append(str(number))
    labels: list[Any] = []
    for place, numbers in groups.items():
        side, offset = ("right", -6) if place[0] > TURN else ("left", 6)
        label = axes.annotate(", ".join(numbers), place, (offset, -LINE), textcoords="offset points", ha=side)
        while any(label.get_window_extent().overlaps(other.get_window_extent()) for other in labels):
            label.xyann = (offset, label.xyann[1] - LINE)
        labels.append(label)


def new_axes(x_label: str, y_label: str) -> Any:
    """Axes with horizontal grid lines and without a frame."""
    figure = Figure(figsize=(WIDTH / PER_INCH, HEIGHT / PER_INCH), dpi=PER_INCH, frameon=False)
    axes = figure.add_axes(AREA, frame_on=False, xlabel=x_label, ylabel=y_label)
    axes.yaxis.set_label_coords(LABEL_X, 0.5)
    axes.tick_params(length=0)
    axes.grid(axis="y", color=GRID, linewidth=1, clip_on=False)
    return axes


def add_line(
    axes: Any, series: int, title: str, x: Sequence[float], y: Sequence[float], **marks: Any
) -> None:
    """Adds one line in the style of its series; the title is shown under the pointer."""
    colour, dashes = line_style(series)
    style = (0, tuple(map(float, dashes.split()))) if dashes else "-"
    axes.plot(
        x, y, color=SERIES["light"][colour], linestyle=style, linewidth=2, clip_on=False, gid=title, **marks
    )


def legend(names: Sequence[str]) -> list[tuple[str, str]]:
    """CSS style and name of each line; lines without a name are left out."""
    styles = map(line_style, range(len(names)))
    return [
        (f"stroke:var(--series-{colour});stroke-dasharray:{dashes or 'none'}", name)
        for (colour, dashes), name in zip(styles, names, strict=True)
        if name
    ]


def thin(points: Points, most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """Returns at most `most` points, each the mean of as many neighbours; few points stay as they are."""
    size = max(1, math.ceil(len(points) / most))
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def column_ticks(columns: Sequence[str]) -> list[tuple[float, str]]:
    """Returns positions and labels of named columns: the names where they fit, else every n-th number."""
    room = CHARACTERS / len(columns) - 1
    if max(len(name) for name in columns) <= room:
        return [(float(place), name) for place, name in enumerate(columns)]
    every = math.ceil(4 / max(room, 1))
    return [(float(place), str(place) if place else "base") for place in range(0, len(columns), every)]


def inline_svg(figure: Figure, description: str) -> Markup:
    """Returns a figure as an SVG element for an HTML page, without ids, fonts or fixed colours.

    Ids would clash between the pictures of a page: the id of a line becomes its title, and a reference to a
    marker becomes a circle.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())  # noqa: S314  # matplotlib's own output
    titles = {line.get_gid() for axes in figure.axes for line in axes.lines}
    for element in list(root.iter()):
        for child in [child for child in element if child.tag.endswith(("metadata", "defs"))]:
            element.remove(child)
        found = element.attrib
        element.tag = element.tag.rpartition("}")[2].replace("use", "circle")
        element.attrib = page_attributes(element.tag, found)
        if found.get("id") in titles:
            title = ElementTree.Element("title")
            title.text = found["id"]
            element.insert(0, title)
    root.attrib |= {"class": "plot", "role": "img", "aria-label": description}
    text = ElementTree.tostring(root, encoding="unicode")
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return Markup(text)  # noqa: S704  # escaped by ElementTree


def page_attributes(tag: str, found: Mapping[str, str]) -> dict[str, str]:
    """The attributes of an element that a page needs; fonts and text colours are in its CSS."""
    style = found.get("style", "")
    if tag == "text":
        anchor = re.search(r"text-anchor: (\w+)", style)
        place = {name: found[name] for name in ("x", "y", "transform")}
        return {**place, "text-anchor": anchor[1] if anchor else "start"}
    if tag == "path":
        rounded = re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.1f}", found["d"])
        return {"d": " ".join(rounded.split()), "style": style}
    if tag == "circle":
        return {"cx": found["x"], "cy": found["y"], "r": str(DOT), "style": style}
    return {name: found[name] for name in ("viewBox",) if name in found}
