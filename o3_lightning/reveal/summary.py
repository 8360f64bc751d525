"""The report of a search: values, lines for the terminal, and an HTML page.

The page shows instructions and counts, but no answers; those are in the request and the log.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from o3_lightning.common.files import write_atomically, write_json
from o3_lightning.common.plain import to_plain
from o3_lightning.data.normalise import normalise
from o3_lightning.reporting.blocks import Block, Card, Chart, Grid, Section, Table, section
from o3_lightning.reporting.formatting import fraction
from o3_lightning.reporting.pictures import line_chart
from o3_lightning.reporting.record import configuration_section
from o3_lightning.reporting.report import render_page
from o3_lightning.reveal.config import RevealConfig
from o3_lightning.reveal.output import Revealed
from o3_lightning.reveal.reveal import Revelation

BEST = 10  # instructions shown
WINDOW = 10  # queries that a point of the reward curve averages


def report_search(revealed: Revelation, config: RevealConfig) -> dict[str, Any]:
    """Returns the report as plain values.

    Returns:
        `queries`, `answered`, `rows`, `distinct_answers`, `mean_relevance` of the rows, `rewards` and
        `relevance` by query, `window` (queries averaged in the curves), `found` (number of distinct relevant
        answers after each query), `best` (instruction, reward, query) and `coverage` (number of rows, first
        query and mean relevance of each distinct answer, the most frequent first).
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
    """Returns the frequency of each distinct answer, without its text."""
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
    """Writes the report to `reveal.json` and `report.html`; returns lines for the terminal."""
    report = report_search(revealed, config)
    write_json(folder / "reveal.json", report, private=True)
    configuration = yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True)
    write_atomically(folder / "report.html", render_search(report, configuration), private=True)
    lines = [
        f"{report['topic']}: {report['rows']} rows with {report['distinct_answers']} different answers from "
        f"{report['queries']} queries ({report['searcher']}, relevance by {report['scorer']})",
        "best instructions:",
    ]
    lines += [f"  {item['reward']:.3f}  {item['instruction']}" for item in report["best"][:5]]
    return lines


def render_search(report: Mapping[str, Any], configuration: str) -> str:
    """Returns the result of `report_search` as a self-contained HTML page without scripts."""
    return render_page(
        f"What was revealed of {report['topic']}",
        f"{report['queries']} queries chosen by {report['searcher']}, relevance by {report['scorer']}",
        ["This page contains no answers; they are in request.jsonl and queries.jsonl, which are sensitive."],
        [
            rewards_section(report),
            instructions_section(report),
            coverage_section(report),
            configuration_section(configuration),
        ],
        cards(report),
    )


def cards(report: Mapping[str, Any]) -> list[Card]:
    """The summary."""
    return [
        Card("Rows", str(report["rows"]), "instructions with an answer that passed the filter"),
        Card("Distinct answers", str(report["distinct_answers"]), "among the rows, ignoring punctuation"),
        Card("Relevance", fraction(report["mean_relevance"]), "mean over the rows, at most 1"),
        Card("Queries", str(report["queries"]), f"{report['answered']} were answered"),
    ]


def rewards_section(report: Mapping[str, Any]) -> Section:
    """The curves over the queries."""
    window = report["window"]
    means = {name: averaged(report[name], window) for name in ("rewards", "relevance")}
    found = [(float(number), float(count)) for number, count in enumerate(report["found"], start=1)]
    blocks: list[Block] = [
        chart(means, f"mean of {window} queries", "reward and mean relevance", (0.0, 1.0)),
        chart({"relevant answers": found}, "so far", "distinct relevant answers", None),
    ]
    return section("rewards", [Grid(blocks)])


def chart(lines: Mapping[str, Any], label: str, caption: str, limits: tuple[float, float] | None) -> Chart:
    """A chart over the queries."""
    text = f"{caption} over the queries"
    return line_chart(caption, lines, x_label="query", y_label=label, description=text, y_limits=limits)


def averaged(values: list[float], window: int) -> list[tuple[float, float]]:
    """Returns the means of consecutive windows, at the last query of each."""
    parts = [values[start : start + window] for start in range(0, len(values), window)]
    ends = [min((number + 1) * window, len(values)) for number in range(len(parts))]
    return [(float(end), sum(part) / len(part)) for end, part in zip(ends, parts, strict=True)]


def instructions_section(report: Mapping[str, Any]) -> Section:
    """The instructions with the highest rewards."""
    rows = [[str(item["query"]), fraction(item["reward"]), item["instruction"]] for item in report["best"]]
    return section("instructions", [Table("", ["query", "reward", "instruction"], rows, prose=True)])


def coverage_section(report: Mapping[str, Any]) -> Section:
    """The frequency of each distinct answer."""
    rows = [
        [str(place), str(item["rows"]), str(item["first"]), fraction(item["relevance"])]
        for place, item in enumerate(report["coverage"], start=1)
    ]
    return section(
        "coverage", [Table("", ["answer", "rows", "first query", "relevance"], rows)] if rows else []
    )
