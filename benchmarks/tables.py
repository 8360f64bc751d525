"""Writes the tables of the documentation again from `results/`: `python -m benchmarks.tables`.

A table is found by its page and the beginning of its head. Its rows keep their order; new ones come last.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import small
from benchmarks import table_rows as rows

DOCS = Path(__file__).parents[1] / "docs"


class Table(NamedTuple):
    """A table: its page below `docs/`, the beginning of its head, and its rows from the results."""

    page: str
    head: str
    rows: Callable[[], Iterator[rows.Row]]


TABLES = (
    Table("results/methods", "| variant |", rows.study("baselines")),
    Table("results/methods", "| model | forgotten |", rows.reference),
    Table("results/methods", "| objective | nearer |", rows.nearness),
    Table("results/gate", "| variant |", rows.study("gate_rules")),
    Table("results/gate", "| without |", rows.ablation),
    Table("results/gate", "| request | kinds |", rows.disguises),
    Table("results/gate", "| true answers about |", rows.true_answers),
    Table("results/adapters", "| mode, penalty on |", rows.adapter_modes),
    Table("results/detector", "| asked about |", rows.namesakes),
    Table("results/detector", "| XQuAD |", rows.articles),
    Table("results/detector", "| measured | limit |", rows.texts),
    Table("results/detector", "| task | near |", rows.detector_tasks),
    Table("results/detector", "| against near,", rows.detectors_beside),
    Table("results/detector", "| request | prompts |", rows.common_names),
    Table("results/detector", "| requests | 1 |", rows.gate_scale),
    Table("results/robustness", "| members |", rows.attack_members),
    Table("results/robustness", "| group |", rows.attack_groups),
    Table("results/robustness", "| attack | leak | base model |", rows.weight_attacks("robustness_demo")),
    Table("results/robustness", "| attack on SmolLM2-135M |", rows.weight_attacks("robustness_smollm2")),
    Table("results/robustness", "| disguises of SmolLM2-135M |", rows.attacked_sentences),
    Table("results/robustness", "| attack | leak of 108 facts |", rows.weight_attacks_over_seeds),
    Table("results/robustness", "| counter-measure |", rows.counter_measures),
    Table("results/reveal_release", "| after |", rows.releases),
    Table("tutorials/demo", "| held-out phrasings |", rows.demo),
    Table("tutorials/smollm2", "| SmolLM2-135M |", rows.real_model("smollm2")),
    Table("tutorials/smollm2", "| Gemma 3 270M |", rows.real_model("gemma3")),
    Table("serving", "| what |", rows.server),
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
    found = {row[0]: f"| {' | '.join(row)} |".replace("|  |", "| |") for row in table.rows()}
    kept = [name for line in lines[first:end] if (name := line.split("|")[1].strip()) in found]
    return "\n".join(
        [*lines[:first], *(found[name] for name in dict.fromkeys([*kept, *found])), *lines[end:]]
    )


def main() -> None:
    """Writes every table, and names the pages that changed; then the page of the small studies."""
    for table in TABLES:
        path = DOCS / f"{table.page}.md"
        before = path.read_text(encoding="utf-8")
        if (after := written(before, table)) != before:
            path.write_text(after, encoding="utf-8")
            sys.stdout.write(f"{path.relative_to(DOCS.parent)}: {table.head}\n")
    small.write()


if __name__ == "__main__":
    main()
