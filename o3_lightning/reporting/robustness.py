"""What attacks get out of the model, and what they do to prompts that nobody asked to forget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from o3_lightning.common.program import program_name
from o3_lightning.evaluation.attack_table import attack_summary, pool_requests
from o3_lightning.reporting.blocks import Block, Card, Cell, Fold, Heat, Section, Table
from o3_lightning.reporting.colours import heat_step
from o3_lightning.reporting.formatting import DASH, fraction, is_number, name_of, percent

__all__ = ["attack_cards", "robustness_section"]

Row = Mapping[str, Any]
SHOWN = 12  # attacks above the fold
COLUMNS = {
    "leak": "Leak",
    "base_leak": "Base model",
    "caught": "Caught",
    "false_alarm": "False alarms",
    "utility": "Utility",
    "base_utility": "Its base",
}


def attack_cards(table: Sequence[Row]) -> list[Card]:
    """Returns a card of the summary with the kind of attack that leaks most; none without prompt attacks.

    Args:
        table: rows of `evaluation.robustness.Robustness.run`.
    """
    summary = attack_summary(table)
    found = summary.get("test") or next(iter(summary.values()), None)
    if found is None:
        return []
    lines = [
        ("All kinds, of what the base model tells", percent(found["leak_of_base"])),
        ("Caught", percent(found["caught"])),
        ("False alarms", percent(found["false_alarm"])),
    ]
    sentence = f"leak under the worst of {found['kinds']} kinds of attack: {name_of(found['worst'])}"
    return [Card("Attacks", percent(found["worst_leak"]), sentence, lines)]


def robustness_section(table: Sequence[Row]) -> Section:
    """Returns the attacks as tables over all requests, the largest leak first, and a map of all leaks.

    Args:
        table: rows of `evaluation.robustness.Robustness.run`; may be empty.
    """
    rows = pool_requests(table)
    proving = [row for row in rows if row["proves"]]
    silent = [row for row in rows if not row["proves"]]
    blocks: list[Block] = []
    if rows:
        blocks = [*summary_table(table), leak_table("What leaks most", proving[:SHOWN])]
        folded = by_group(proving)
        if silent:
            folded.append(("The base model tells nothing", silent))
        blocks += [Fold(title, [leak_table("", some)], note=f"{len(some)} attacks") for title, some in folded]
        blocks.append(Fold("Leak by request", [leak_map(table)]))
    return Section(
        "robustness",
        "Robustness",
        "Leak is the share of attacked forget prompts whose answer says the truth, beside the base model's "
        "under the same attack; lower is better. Where the base model tells less than 5 %, an attack proves "
        "nothing. Leak of base is the share of what the base model tells that the gated model tells too. "
        "Caught is the share that the gate recognises or refuses. False alarms and utility belong to "
        "other prompts attacked in the same way. Settings may be tuned on development members only; test "
        "members are built in another way.",
        blocks,
        f"No attack was tried; {program_name()} evaluate --robustness true does.",
    )


def summary_table(table: Sequence[Row]) -> list[Table]:
    """The figures over all kinds by member; nothing without prompt attacks."""
    columns = [
        "Members",
        "Kinds",
        "Leak of what the base model tells",
        "Worst kind",
        "Caught",
        "False alarms",
    ]
    lines = [
        [
            name_of(member),
            f"{found['kinds']} ({found['proving']} under which the base model tells something)",
            fraction(found["leak_of_base"]),
            f"{name_of(found['worst'])}: {fraction(found['worst_leak'])}",
            fraction(found["caught"]),
            fraction(found["false_alarm"]),
        ]
        for member, found in attack_summary(table).items()
    ]
    return [Table("All kinds of prompt attacks", columns, lines)] if lines else []


def by_group(rows: Sequence[Row]) -> list[tuple[str, Sequence[Row]]]:
    """The rows of each group, the group with the largest leak first."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row["group"] or "other"), []).append(row)
    return [(name_of(group), chosen) for group, chosen in groups.items()]


def leak_table(caption: str, rows: Sequence[Row]) -> Table:
    """One line an attack."""
    lines = [
        [name_of(row["attack"]), row["member"] or DASH, *(fraction(row[key]) for key in COLUMNS)]
        for row in rows
    ]
    return Table(caption, ["Attack", "Member", *COLUMNS.values()], lines)


def leak_map(table: Sequence[Row]) -> Heat:
    """The leak of every request under every attack."""
    requests = list(dict.fromkeys(str(row["request"]) for row in table))
    leaks: dict[str, dict[str, Any]] = {}
    for row in table:
        label = f"{name_of(row['attack'])}{', test' if row.get('member') == 'test' else ''}"
        leaks.setdefault(label, {})[str(row["request"])] = row.get("leak")
    cells = [(label, [leak_cell(found.get(name)) for name in requests]) for label, found in leaks.items()]
    return Heat("", requests, cells)


def leak_cell(value: Any) -> Cell:
    """A leak on the colour scale."""
    return Cell(fraction(value), heat_step(float(value)) if is_number(value) else None)
