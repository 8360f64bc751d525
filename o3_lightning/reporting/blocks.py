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
    """An inline picture; `legend` holds (series number, name)."""

    kind: ClassVar[str] = "chart"
    caption: str
    picture: Markup
    legend: Sequence[tuple[int, str]] = ()
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of texts; the first column names the row. A `Markup` cell is drawn as it is."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Bars:
    """Horizontal bars: (name, share of the longest in [0, 1], value as text)."""

    kind: ClassVar[str] = "bars"
    caption: str
    rows: Sequence[tuple[str, float, str]]
    note: str = ""


@dataclass(frozen=True)
class Samples:
    """Answers before and after."""

    kind: ClassVar[str] = "samples"
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
    """Blocks under a title that opens and closes."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: Sequence[Any]
    open: bool = False


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
