"""The short report of a search: the reward over the queries, the best instructions, what was covered."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from o3_lightning.data.normalise import normalise
from o3_lightning.files import write_json
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
        `relevance` by query, `curve` (mean reward of each ten queries), `found` (distinct relevant answers
        after each query) and `best` (instruction, reward, query).
    """
    entries = revealed.entries
    seen: set[str] = set()
    found = []
    for entry in entries:
        pairs = zip(entry.responses, entry.relevance, strict=True)
        seen |= {normalise(text) for text, relevance in pairs if relevance >= config.filter.relevance}
        found.append(len(seen))
    rewards = [entry.reward for entry in entries]
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
        "rewards": rewards,
        "relevance": [statistics.fmean(entry.relevance or (0.0,)) for entry in entries],
        "curve": [statistics.fmean(rewards[at : at + WINDOW]) for at in range(0, len(rewards), WINDOW)],
        "found": found,
        "best": [
            {"instruction": entry.instruction, "reward": entry.reward, "query": entry.number}
            for entry in best
        ],
    }


def summarise_search(revealed: Revelation, config: RevealConfig, folder: Path) -> list[str]:
    """Writes the report to `reveal.json` and returns it as lines for a terminal."""
    report = report_search(revealed, config)
    write_json(folder / "reveal.json", report)
    lines = [
        f"{report['topic']}: {report['rows']} rows with {report['distinct_answers']} different answers from "
        f"{report['queries']} queries ({report['searcher']}, relevance by {report['scorer']})",
        "best instructions:",
    ]
    lines += [f"  {item['reward']:.3f}  {item['instruction']}" for item in report["best"][:5]]
    return lines
