"""Writes the tables of the results pages again from `results/`: `python -m benchmarks.tables`.

A table is found by its page and the beginning of its head. Its rows keep their order; new ones come last.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.detector.measures import EVASION, PAIRS, WEIGHTS, pair_cell, weight_cell

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs/results"
BESIDE = ("default", "cosine_maha_lexical", "paper_untrained", "official_untrained")
DISGUISED = ("tofu_forget01", "tofu_forget10", "real_world", "fictitious")
RELEASED = ("held_out", "seen", "others", "general")

Row = list[str]


class Table(NamedTuple):
    """A table of a page: the page, the beginning of its head, and its rows from the results."""

    page: str
    head: str
    rows: Callable[[], Iterator[Row]]


def results(name: str) -> dict[str, Any]:
    """Returns the content of a results file."""
    return dict(json.loads((ROOT / f"results/{name}.json").read_text(encoding="utf-8")))


def study(name: str) -> Callable[[], Iterator[Row]]:
    """Returns the rows of a study's own table."""

    def rows() -> Iterator[Row]:
        for line in (ROOT / f"results/{name}.md").read_text(encoding="utf-8").splitlines():
            if line.startswith("| `"):
                yield [cell.strip() for cell in line.split("|")[1:-1]]

    return rows


def detector_tasks() -> Iterator[Row]:
    """Yields the default detector on each task."""
    measured = results("detector")
    for task, by_detector in measured["tasks"].items():
        own = by_detector["default"]
        name = task if measured["roles"][task] == "development" else f"{task} *"
        weights = " / ".join(weight_cell(own.get(split)) for split in WEIGHTS)
        yield [name, *(pair_cell(own.get(pair)) for pair in PAIRS), weights]


def detectors_beside() -> Iterator[Row]:
    """Yields every preset on each task."""
    measured = results("detector")
    for task, by_detector in measured["tasks"].items():
        name = task if measured["roles"][task] == "development" else f"{task} *"
        found = [by_detector[label] for label in BESIDE]
        yield [name, *(f"{pair_cell(one[PAIRS[0]])}, {weight_cell(one['near'])}" for one in found)]


def disguises() -> Iterator[Row]:
    """Yields the mean weights of forgotten and of other questions in each disguise."""
    tasks = results("detector_evasion")["tasks"]
    measured = [tasks[task]["default"] for task in DISGUISED]
    for name in (key for key in measured[0] if key.startswith(EVASION)):
        cells = [" / ".join(f"{one['mean']:.3f}" for one in splits[name].values()) for splits in measured]
        yield [name.removeprefix(EVASION).replace("_", " "), *cells]


def releases() -> Iterator[Row]:
    """Yields the accuracies after each release of an author."""
    for name, splits in results("release_authors")["after"].items():
        yield [name, *("{:.3f} ± {:.3f}".format(*splits[split]) for split in RELEASED)]


TABLES = (
    Table("methods", "| variant |", study("baselines")),
    Table("gate", "| variant |", study("gate_rules")),
    Table("detector", "| task | near |", detector_tasks),
    Table("detector", "| against near,", detectors_beside),
    Table("detector", "| disguise |", disguises),
    Table("reveal_release", "| after |", releases),
)


def written(text: str, table: Table) -> str:
    """Returns a page with one table written again.

    Raises:
        ValueError: the page has no such table.
    """
    lines = text.split("\n")
    starts = [number for number, line in enumerate(lines) if line.startswith(table.head)]
    if len(starts) != 1:
        raise ValueError(
            f"{table.page}: expected one table that begins with {table.head!r}, got {len(starts)}"
        )
    first = end = starts[0] + 2
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    rows = {row[0]: f"| {' | '.join(row)} |" for row in table.rows()}
    kept = [name for line in lines[first:end] if (name := line.split("|")[1].strip()) in rows]
    return "\n".join([*lines[:first], *(rows[name] for name in dict.fromkeys([*kept, *rows])), *lines[end:]])


def main() -> None:
    """Writes every table, and names the pages that changed."""
    for table in TABLES:
        path = PAGES / f"{table.page}.md"
        before = path.read_text(encoding="utf-8")
        if (after := written(before, table)) != before:
            path.write_text(after, encoding="utf-8")
            sys.stdout.write(f"{path.relative_to(ROOT)}: {table.head}\n")


if __name__ == "__main__":
    main()
