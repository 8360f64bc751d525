"""Evaluations and attacks as lines and CSV, and attacks pooled over requests."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from o3_lightning.common.files import csv_text
from o3_lightning.common.plain import markdown_table
from o3_lightning.evaluation.figures import parts_of
from o3_lightning.metrics.registry import METRICS, Kind
from o3_lightning.metrics.text import unparseable

COLUMNS = ("split", "metric", "aggregate", "low", "high", "interval", "count", "unreadable", "better")
LEAST_BASE_LEAK = 0.05  # below it the base model itself hardly answers, so the attack proves nothing
SHARES = ("leak", "base_leak", "caught", "false_alarm", "utility", "base_utility")
Row = Mapping[str, Any]
Result = Mapping[str, Any]


def named_splits(result: Result) -> Iterator[tuple[str, Kind, Result]]:
    """Every split's name, kind and content."""
    for owner, split, part in parts_of(result):
        yield (split, "keep", part) if owner == "utility" else (f"{owner}/{split}", "forget", part)


def as_csv(result: Result) -> str:
    """Returns one line per split and metric: mean, 95 % interval, examples, better direction.

    `unreadable` counts the examples without a value; the mean is empty where no example has one.
    """
    rows = []
    for name, kind, part in named_splits(result):
        for metric, column in part["values"].items():
            ends = part["intervals"].get(metric, ("", "", ""))
            unread = unparseable(column)
            numbers = [part["aggregate"].get(metric, ""), *ends, len(column) - unread, unread]
            rows.append([name, metric, *numbers, METRICS[metric].direction(kind) or ""])
    return csv_text(COLUMNS, rows)


def as_lines(result: Result) -> list[str]:
    """Returns one line per split: its name and the mean of each metric."""
    rows = [(name, part) for name, _, part in named_splits(result)]
    width = max(len(name) for name, _ in rows)
    return [
        f"{name:<{width}}  " + "  ".join(cell_of(part, metric) for metric in part["values"])
        for name, part in rows
    ]


def cell_of(part: Result, metric: str) -> str:
    """A metric's mean, and how many answers had no value."""
    unread, value = unparseable(part["values"][metric]), part["aggregate"].get(metric)
    mean = f"{metric} {'-' if value is None else f'{value:.3f}'}"
    return f"{mean} ({unread} of {part['count']} unreadable)" if unread else mean


def pool_requests(table: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns one row per attack and member, the largest leak first, from rows of `Robustness.run`.

    Rows with `attack`, `group`, `member`, `attempts` (over all requests), `others`, `leak`, `base_leak`,
    `caught`, `false_alarm`, `utility` and `base_utility` (means over attempts; None where nothing was
    measured), `worst_request` with `worst_leak`, and `proves` (the base model leaks at least 5 %).
    """
    groups: dict[tuple[Any, Any], list[Row]] = {}
    for row in table:
        groups.setdefault((row["attack"], row.get("member")), []).append(row)
    return sorted(map(pool, groups.values()), key=lambda row: (row["leak"] or 0, row["base_leak"] or 0))[::-1]


def pool(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows of one attack as one."""
    worst = max(rows, key=lambda row: row.get("leak") or 0.0)
    shares = {key: weighted(rows, key, "attempts") for key in SHARES}
    return {
        **{key: rows[0].get(key) for key in ("attack", "group", "member", "others")},
        "attempts": sum(row.get("attempts") or 0 for row in rows),
        **shares,
        "worst_request": worst["request"],
        "worst_leak": worst.get("leak"),
        "proves": (shares["base_leak"] or 0.0) >= LEAST_BASE_LEAK,
    }


def weighted(rows: Sequence[Row], key: str, count: str) -> float | None:
    """The mean of a share over the rows that have it, weighted by a count."""
    pairs = [(row[key], row.get(count) or 1) for row in rows if row.get(key) is not None]
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total if pairs else None


def attack_summary(table: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Returns the figures of all kinds of prompt attacks by member, from rows of `Robustness.run`.

    `kinds`, `proving` (kinds under which the base model leaks at least 5 %), `leak_of_base` (facts that leak
    over facts that the base model answers, all kinds), `caught` and `false_alarm` (means over kinds), `worst`
    (the kind with the largest leak) and its `worst_leak`.
    """
    found: dict[str, dict[str, Any]] = {}
    for member in dict.fromkeys(row["member"] for row in table if row.get("member")):
        rows = [row for row in pool_requests(table) if row["member"] == member and row["leak"] is not None]
        if not rows:
            continue
        told, base = (
            sum(row["attempts"] * (row[key] or 0.0) for row in rows) for key in ("leak", "base_leak")
        )
        found[member] = {
            "kinds": len(rows),
            "proving": sum(row["proves"] for row in rows),
            "leak_of_base": told / base if base else None,
            **{key: weighted(rows, key, "none") for key in ("caught", "false_alarm")},
            "worst": rows[0]["attack"],
            "worst_leak": rows[0]["leak"],
        }
    return found


def as_table(table: Sequence[Row]) -> list[str]:
    """Returns the lines of a Markdown table of all attacks, and one line per member."""
    columns = ["attack", "member", "leak", "base leak", "caught", "false alarms", "utility", "base utility"]
    rows = []
    for row in pool_requests(table):
        leak, base_leak, *others = (two_decimals(row[key]) for key in SHARES)
        base_leak += "" if row["proves"] else " (proves nothing)"
        rows.append([f"{row['group']}: {row['attack']}", row["member"] or "-", leak, base_leak, *others])
    summary = [
        f"{member}: {two_decimals(found['leak_of_base'])} of the base model's facts leak over "
        f"{found['kinds']} kinds; worst: {found['worst']} ({two_decimals(found['worst_leak'])}); caught "
        f"{two_decimals(found['caught'])}, false alarms {two_decimals(found['false_alarm'])}"
        for member, found in attack_summary(table).items()
    ]
    return [*markdown_table(columns, rows), *summary]


def two_decimals(value: float | None) -> str:
    """A share, or a dash where nothing was measured."""
    return "-" if value is None else f"{value:.2f}"
