"""The report of a search as values, as lines for a terminal and as a page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from o3_lightning.common.files import write_atomically, write_json
from o3_lightning.common.plain import to_plain
from o3_lightning.data.normalise import normalise
from o3_lightning.reveal.output import Revealed
from o3_lightning.reveal.page import render_search
from o3_lightning.reveal.reveal import RevealConfig, Revelation

__all__ = ["report_search", "summarise_search"]

BEST = 10  # instructions shown
WINDOW = 10  # queries whose rewards are averaged in the curve


def report_search(revealed: Revelation, config: RevealConfig) -> dict[str, Any]:
    """Returns the report as plain values.

    Args:
        revealed: the outcome.
        config: of the search.

    Returns:
        `queries`, `answered`, `rows`, `distinct_answers`, `mean_relevance` of the rows, `rewards` and
        `relevance` by query, `window` (queries whose mean a curve shows), `found` (distinct relevant answers
        after each query), `best` (instruction, reward, query) and `coverage` (of each different answer among
        the rows, the most frequent first: rows, first query, mean relevance).
    """
    entries = revealed.entries
    seen: set[str] = set()
    found = []
    for entry in entries:
        pairs = zip(entry.responses, entry.relevance, strict=True)
        seen |= {normalise(text) for text, relevance in pairs if relevance >= config.filter.relevance}
        found.append(len(seen))
    best = sorted(entries, key=lambda entry: (-entry.reward, entry.number))[:BEST]
    return {
        "topic": config.topic,
        "searcher": config.search.searcher,
        "scorer": config.reward.scorer,
        "queries": len(entries),
        "answered": sum(bool(entry.responses) for entry in entries),
        "rows": len(revealed.rows),
        "distinct_answers": len({normalise(row.answer) for row in revealed.rows}),
        "mean_relevance": statistics.fmean(row.relevance for row in revealed.rows),
        "rewards": [entry.reward for entry in entries],
        "relevance": [statistics.fmean(entry.relevance or (0.0,)) for entry in entries],
        "window": WINDOW,
        "found": found,
        "best": [
            {"instruction": entry.instruction, "reward": entry.reward, "query": entry.number}
            for entry in best
        ],
        "coverage": coverage_of(revealed.rows),
    }


def coverage_of(rows: Sequence[Revealed]) -> list[dict[str, Any]]:
    """Returns how often each different answer was said, without its text."""
    groups: dict[str, list[Revealed]] = {}
    for row in rows:
        groups.setdefault(normalise(row.answer), []).append(row)
    return [
        {
            "rows": len(group),
            "first": min(row.query for row in group),
            "relevance": statistics.fmean(row.relevance for row in group),
        }
        for group in sorted(groups.values(), key=len, reverse=True)
    ]


def summarise_search(revealed: Revelation, config: RevealConfig, folder: Path) -> list[str]:
    """Writes the report to `reveal.json` and `report.html` and returns it as lines for a terminal."""
    report = report_search(revealed, config)
    write_json(folder / "reveal.json", report)
    configuration = yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True)
    write_atomically(folder / "report.html", render_search(report, configuration))
    lines = [
        f"{report['topic']}: {report['rows']} rows with {report['distinct_answers']} different answers from "
        f"{report['queries']} queries ({report['searcher']}, relevance by {report['scorer']})",
        "best instructions:",
    ]
    lines += [f"  {item['reward']:.3f}  {item['instruction']}" for item in report["best"][:5]]
    return lines
