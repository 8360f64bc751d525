"""The pieces of a page: plain data that the templates draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from o3_lightning.reporting.colours import heat_step
from o3_lightning.reporting.formatting import TEXTS, fraction, is_number

BESIDE = 6  # columns of heat maps that fit beside each other


@dataclass(frozen=True)
class Cell:
    """A coloured cell: `step` is the position on the colour scale from 0, or None for no colour.

    A marked cell has the line "unlearned here" on its left; the title is shown under the pointer.
    """

    text: str
    step: int | None = None
    marked: bool = False
    title: str = ""


class Block:
    """A piece of a section; `blocks.html` draws each kind."""

    @property
    def kind(self) -> str:
        """The name of the class in lower case."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Heat(Block):
    """A table of coloured cells, one row per name."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    note: str = ""


@dataclass(frozen=True)
class Chart(Block):
    """An inline SVG picture; `legend` holds the CSS style and the name of each line."""

    caption: str
    picture: Markup
    legend: Sequence[tuple[str, str]] = ()
    note: str = ""


@dataclass(frozen=True)
class Table(Block):
    """A table of texts; the first column names the row, a `Markup` cell is not escaped.

    With `prose` the cells hold sentences or lists: they are left-aligned and wrapped.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    prose: bool = False


@dataclass(frozen=True)
class Bars(Block):
    """Horizontal bars: (name, share of the longest in [0, 1], value as text)."""

    caption: str
    rows: Sequence[tuple[str, float, str]]
    note: str = ""


@dataclass(frozen=True)
class Samples(Block):
    """Answers before and after, under a title."""

    title: str
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Code(Block):
    """Text in fixed width."""

    text: str


@dataclass(frozen=True)
class Grid(Block):
    """Blocks side by side where the page is wide enough."""

    blocks: Sequence[Block]


@dataclass(frozen=True)
class Fold(Block):
    """Blocks under a title that opens and closes, with a note beside the title."""

    title: str
    blocks: Sequence[Block]
    open: bool = False
    note: str = ""


@dataclass(frozen=True)
class Card:
    """One number of the summary, with its unit, a sentence about it, and further numbers as (name, value)."""

    title: str
    value: str
    sentence: str
    lines: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Section:
    """A part of the page with its anchor, heading and lead; `missing` is shown where there are no blocks."""

    id: str
    title: str
    sentence: str
    blocks: Sequence[Block]
    missing: str


def section(id: str, blocks: Sequence[Block], fields: Mapping[str, str] | None = None) -> Section:
    """Returns a section with its texts from `templates/texts.yaml`, whose fields are filled in."""
    title, sentence, missing = (text.format_map(fields or {}) for text in TEXTS["sections"][id].values())
    return Section(id, title, sentence, blocks, missing)


def heat_cell(
    value: Any,
    title: str = "",
    limits: tuple[float, float] = (0.0, 1.0),
    *,
    marked: bool = False,
    signed: bool = True,
) -> Cell:
    """Returns a number on the colour scale between two limits; without colour where it was not measured.

    Args:
        value: the number.
        title: shown under the pointer, followed by the number.
        limits: the ends of the scale.
        marked: see `Cell`.
        signed: False colours by the absolute value.
    """
    text = fraction(value)
    step = heat_step(value if signed else abs(value), *limits) if is_number(value) else None
    return Cell(text, step, marked, f"{title}: {text}" if title else "")


def few_then_fold(blocks: Sequence[Block], shown: int, what: str) -> list[Block]:
    """Returns blocks side by side: the first few open, the rest under a title."""
    if not blocks:
        return []
    rest = blocks[shown:]
    folded = [Fold(f"{len(rest)} more {what}", [Grid(rest)])] if rest else []
    return [Grid(blocks[:shown]), *folded]


def side_by_side(maps: Sequence[Heat]) -> list[Block]:
    """Returns heat maps beside each other while they have at most six columns, else one below another."""
    return [Grid(maps)] if maps and max(len(one.columns) for one in maps) <= BESIDE else list(maps)
