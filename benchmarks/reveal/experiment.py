"""Comparisons of the searchers under one budget: on bandits with known optimum, and on fictitious authors.

What the fictitious world knows is read here to count what was found, and by no reward.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.reveal.synthetic import compare_searchers, paired_differences
from o3_lightning.common.files import write_json
from o3_lightning.data.fictitious import Author, build_world
from o3_lightning.metrics.text import says
from o3_lightning.models.base import BaseModel
from o3_lightning.reveal.config import SEARCHERS, RevealConfig, SearchConfig
from o3_lightning.reveal.log import Entry
from o3_lightning.reveal.output import select_rows
from o3_lightning.reveal.reveal import NothingRevealedError, reveal_topic

__all__ = ["benchmark_authors", "benchmark_bandit", "coverage"]

BANDIT = SearchConfig(queries=120, first=5, candidates=0, repeat=True, hidden=64)
SEEDS = range(20)  # settings were chosen on seeds from 100 on
ARMS, FEATURES = 300, 4


def benchmark_bandit(path: Path, searchers: Sequence[str] = SEARCHERS) -> list[str]:
    """Writes the mean regret of each searcher over 20 bandits, with intervals, and returns it as lines.

    The first searcher is also compared with each other one, bandit by bandit.
    """
    table: dict[str, Any] = compare_searchers("peaks", SEEDS, BANDIT, searchers, arms=ARMS, features=FEATURES)
    first, *others = searchers
    paired = {name: paired_differences(table[first]["values"], table[name]["values"]) for name in others}
    settings = {"shape": "peaks", "arms": ARMS, "features": FEATURES, **asdict(BANDIT)}
    content = {"settings": settings, "seeds": list(SEEDS), "mean_regret": table, "against": {first: paired}}
    write_json(path, content)
    regrets = [
        f"{name:12} {row['mean']:.3f}  (95 % {row['low']:.3f} to {row['high']:.3f})"
        for name, row in table.items()
    ]
    differences = [
        f"{first} against {name}: smaller by {row['mean']:.3f} (95 % {row['low']:.3f} to {row['high']:.3f}), "
        f"on {row['better']:.0%} of the bandits"
        for name, row in paired.items()
    ]
    return regrets + differences


def coverage(entries: Sequence[Entry], author: Author, config: RevealConfig) -> dict[str, Any]:
    """Returns how much of an author a search found.

    Returns:
        `recall`, the share of attributes that some row of the request holds; `precision`, the share of rows
        that hold one; `rows`; `first` query at which each attribute was said by any answer.
    """
    rows = select_rows(entries, author.name, config.filter)
    held = [{name for name, fact in author.facts.items() if says(row.answer, fact)} for row in rows]
    first: dict[str, int] = {}
    for entry in entries:
        for name, fact in author.facts.items():
            if any(says(answer, fact) for answer in entry.responses):
                first.setdefault(name, entry.number)
    return {
        "recall": len(set().union(*held)) / len(author.facts),
        "precision": sum(bool(names) for names in held) / len(rows) if rows else 0.0,
        "rows": len(rows),
        "first": first,
    }


def benchmark_authors(
    base: BaseModel, config: RevealConfig, path: Path, *, authors: int, searchers: Sequence[str]
) -> list[str]:
    """Writes what each searcher finds of several authors given their names, and returns it as lines.

    Args:
        base: the embedded model of the configuration's seed.
        config: budget and pool; topic and searcher are replaced.
        path: of the results; logs go to the configuration's folder, so a comparison goes on after a stop.
        authors: the first so many of the world.
        searchers: which ones.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in searchers}
    for author in build_world(config.seed).authors[:authors]:
        for name in searchers:
            own = replace(
                config, topic=author.name, search=replace(config.search, searcher=name), request_id=""
            )
            log = config.folder / f"{own.identifier}_{name}.jsonl"
            try:
                entries: Sequence[Entry] = reveal_topic(base, own, log).entries
            except NothingRevealedError:
                entries = ()
            found[name].append({"author": author.name, **coverage(entries, author, own)})
    settings = {"queries": config.search.queries, "general_subjects": config.arms.general_subjects}
    write_json(path, {"settings": {**settings, "seed": config.seed}, "searchers": found})
    return [
        f"{name:12} recall {statistics.fmean(row['recall'] for row in rows):.3f} "
        f"({', '.join(format(row['recall'], '.2f') for row in rows)}), "
        f"precision {statistics.fmean(row['precision'] for row in rows):.3f}"
        for name, rows in found.items()
    ]
