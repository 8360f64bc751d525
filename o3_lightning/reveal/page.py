"""The page of a search: what it earned query by query, which instructions were best, and what was covered.

It shows instructions and counts, and no answer: those are in the request and in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from o3_lightning.reporting.blocks import Block, Card, Chart, Grid, Section, Table
from o3_lightning.reporting.formatting import fraction
from o3_lightning.reporting.pictures import line_chart
from o3_lightning.reporting.record import configuration_section
from o3_lightning.reporting.report import render_page

__all__ = ["render_search"]


def render_search(report: Mapping[str, Any], configuration: str) -> str:
    """Returns a self-contained page about a search: HTML with its style and pictures inside, no script.

    Args:
        report: of `report_search`.
        configuration: YAML text.
    """
    return render_page(
        f"What was revealed of {report['topic']}",
        f"{report['queries']} queries chosen by {report['searcher']}, relevance by {report['scorer']}",
        ["No answer stands here; request.jsonl and queries.jsonl hold them, and want to be kept with care."],
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
        Card("Different answers", str(report["distinct_answers"]), "among the rows, case and stops aside"),
        Card("Relevance", fraction(report["mean_relevance"]), "mean over the rows; 1 is wholly relevant"),
        Card("Queries", str(report["queries"]), f"{report['answered']} were answered"),
    ]


def rewards_section(report: Mapping[str, Any]) -> Section:
    """The curves over the queries."""
    window = report["window"]
    means = {name: averaged(report[name], window) for name in ("rewards", "relevance")}
    found = [(float(number), float(count)) for number, count in enumerate(report["found"], start=1)]
    blocks: list[Block] = [
        chart(means, f"mean of {window} queries", "reward and mean relevance", (0.0, 1.0)),
        chart({"relevant answers": found}, "so far", "different relevant answers", None),
    ]
    return Section(
        "rewards",
        "Reward over the queries",
        "The reward falls where little new is left to say; the count of answers shows what was found.",
        [Grid(blocks)],
        "No query was asked.",
    )


def chart(lines: Mapping[str, Any], label: str, caption: str, limits: tuple[float, float] | None) -> Chart:
    """One picture over the queries."""
    description = f"{caption} over the queries"
    return line_chart(
        caption, lines, x_label="query", y_label=label, description=description, y_limits=limits
    )


def averaged(values: list[float], window: int) -> list[tuple[float, float]]:
    """Returns the mean of each so many values, at the query in which they end."""
    parts = [
        (min(at + window, len(values)), values[at : at + window]) for at in range(0, len(values), window)
    ]
    return [(float(end), sum(part) / len(part)) for end, part in parts]


def instructions_section(report: Mapping[str, Any]) -> Section:
    """The instructions that were worth most."""
    rows = [[str(item["query"]), fraction(item["reward"]), item["instruction"]] for item in report["best"]]
    return Section(
        "instructions",
        "Best instructions",
        "{topic} stands for the topic. An early query earns more, because everything is still new.",
        [Table("", ["query", "reward", "instruction"], rows, prose=True)],
        "No query was asked.",
    )


def coverage_section(report: Mapping[str, Any]) -> Section:
    """How often each different answer was said, without its text."""
    rows = [
        [str(place), str(item["rows"]), str(item["first"]), fraction(item["relevance"])]
        for place, item in enumerate(report["coverage"], start=1)
    ]
    return Section(
        "coverage",
        "Coverage",
        "One line for each different answer among the rows. One that few instructions bring about may have "
        "neighbours that none did.",
        [Table("", ["answer", "rows", "first query", "relevance"], rows)] if rows else [],
        "No answer passed the filter.",
    )
