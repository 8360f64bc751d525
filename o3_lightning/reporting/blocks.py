"""The pieces a page is made of: plain data, drawn by the templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from markupsafe import Markup

__all__ = [
    "Bars",
    "Block",
    "Card",
    "Cell",
    "Chart",
    "Code",
    "Fold",
    "Grid",
    "Heat",
    "Samples",
    "Section",
    "Table",
    "few_then_fold",
    "side_by_side",
]


@dataclass(frozen=True)
class Cell:
    """A number with a colour.

    Args:
        text: the number as it is read.
        step: place on the colour scale, from 0; None for no colour.
        marked: whether the cell stands right of the line "unlearned here".
        title: what a pointer that rests on the cell is told.
    """

    text: str
    step: int | None = None
    marked: bool = False
    title: str = ""


@dataclass(frozen=True)
class Heat:
    """A table of coloured cells, one row per name."""

    kind: ClassVar[str] = "heat"
    caption: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """An inline SVG picture; `legend` holds the CSS style and the name of each line."""

    kind: ClassVar[str] = "chart"
    caption: str
    picture: Markup
    legend: Sequence[tuple[str, str]] = ()
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of texts; the first column names the row. A `Markup` cell is drawn as it is.

    With `prose` the cells hold sentences or lists: they start at the left and break into lines.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    prose: bool = False


@dataclass(frozen=True)
class Bars:
    """Horizontal bars: (name, share of the longest in [0, 1], value as text)."""

    kind: ClassVar[str] = "bars"
    caption: str
    rows: Sequence[tuple[str, float, str]]
    note: str = ""


@dataclass(frozen=True)
class Samples:
    """Answers before and after, under a title."""

    kind: ClassVar[str] = "samples"
    title: str
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Code:
    """Text in fixed width."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Grid:
    """Blocks side by side where the page is wide enough."""

    kind: ClassVar[str] = "grid"
    blocks: Sequence[Any]


@dataclass(frozen=True)
class Fold:
    """Blocks under a title that opens and closes; the note stands beside the title."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: Sequence[Any]
    open: bool = False
    note: str = ""


def few_then_fold(blocks: Sequence[Any], shown: int, what: str) -> list[Any]:
    """Returns blocks side by side: the first few open, the rest under a title."""
    if not blocks:
        return []
    rest = blocks[shown:]
    head = [Grid(blocks[:shown])]
    return [*head, Fold(f"{len(rest)} more {what}", [Grid(rest)])] if rest else head


def side_by_side(maps: Sequence[Heat], most: int = 6) -> list[Any]:
    """Returns heat maps beside each other while they have at most `most` columns, else one below another."""
    if not maps:
        return []
    return [Grid(maps)] if max(len(one.columns) for one in maps) <= most else list(maps)


Block = Heat | Chart | Table | Bars | Samples | Code | Grid | Fold


@dataclass(frozen=True)
class Card:
    """One number of the summary.

    Args:
        title: what it is about.
        value: the number with its unit.
        sentence: what the number says.
        lines: further numbers, (name, value).
    """

    title: str
    value: str
    sentence: str
    lines: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Args:
        id: its anchor.
        title: its heading.
        sentence: what its pictures show and how to read them.
        blocks: the pictures; none where the run did not measure them.
        missing: the sentence that then stands there.
    """

    id: str
    title: str
    sentence: str
    blocks: Sequence[Block]
    missing: str
