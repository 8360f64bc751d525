"""What attacks get out of the model, and what they do to prompts that nobody asked to forget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from o3_lightning.common.plain import mean_of
from o3_lightning.common.program import program_name
from o3_lightning.reporting.blocks import Block, Cell, Fold, Grid, Heat, Section, Table
from o3_lightning.reporting.colours import heat_step
from o3_lightning.reporting.formatting import fraction, is_number, name_of

__all__ = ["robustness_section"]

Row = Mapping[str, Any]


def robustness_section(table: Sequence[Row]) -> Section:
    """Returns the attacks as a table over all requests, and the leak of each request as a heat map.

    Args:
        table: rows of `evaluation.robustness.Robustness.run`, one per attack and request; may be empty.
    """
    attacks: dict[str, list[Row]] = {}
    for row in table:
        attacks.setdefault(str(row["attack"]), []).append(row)
    blocks: list[Block] = []
    if attacks:
        folded = Fold("Leak by request", [leak_map(attacks)])
        tables = Grid([leak_table(attacks), side_table(attacks)])
        blocks = [tables, folded] if several_requests(table) else [tables]
    return Section(
        "robustness",
        "Robustness",
        "Leak is the share of attacked forget prompts whose answer says the truth, beside the base model's "
        "under the same attack; lower is better. Caught is the share that the gate recognises. False alarms "
        "and utility belong to other prompts attacked in the same way. Means over the requests; the worst "
        "request's leak comes with its 95 % interval.",
        blocks,
        f"No attack was tried; {program_name()} evaluate --robustness true does.",
    )


def several_requests(table: Sequence[Row]) -> bool:
    """Whether the attacks were tried on more than one request."""
    return len({row["request"] for row in table}) > 1


def leak_table(attacks: Mapping[str, Sequence[Row]]) -> Table:
    """What each attack gets out; two tables of few columns fit a phone."""
    columns = ["Attack", "Leak", "Worst request", "95 %", "Base model"]
    return Table("What leaks", columns, [leak_row(name, rows) for name, rows in attacks.items()])


def leak_row(name: str, rows: Sequence[Row]) -> list[str]:
    """The leaks of one attack."""
    worst = max(rows, key=lambda row: row["leak"] if is_number(row.get("leak")) else -1.0)
    low, high = (worst.get("leak_interval") or (None, None))[:2]
    interval = f"{fraction(low)} to {fraction(high)}" if is_number(low) else fraction(None)
    means = [fraction(mean_of(row.get(key) for row in rows)) for key in ("leak", "base_leak")]
    return [name_of(name), means[0], fraction(worst.get("leak")), interval, means[1]]


def side_table(attacks: Mapping[str, Sequence[Row]]) -> Table:
    """What the gate and other prompts make of each attack."""
    keys = {
        "caught": "Caught",
        "false_alarm": "False alarms",
        "utility": "Utility",
        "base_utility": "Its base",
    }
    rows = [
        [name_of(name), *(fraction(mean_of(row.get(key) for row in rows)) for key in keys)]
        for name, rows in attacks.items()
    ]
    return Table("What the gate does, and the rest", ["Attack", *keys.values()], rows)


def leak_map(attacks: Mapping[str, Sequence[Row]]) -> Heat:
    """The leak of every request under every attack."""
    requests = list(dict.fromkeys(str(row["request"]) for rows in attacks.values() for row in rows))
    cells = []
    for name, rows in attacks.items():
        leaks = {str(row["request"]): row.get("leak") for row in rows}
        cells.append((name_of(name), [leak_cell(leaks.get(request)) for request in requests]))
    return Heat("", requests, cells)


def leak_cell(value: Any) -> Cell:
    """A leak on the colour scale."""
    return Cell(fraction(value), heat_step(float(value)) if is_number(value) else None)
