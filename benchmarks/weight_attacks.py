"""Pools the attacks on weights of several attacked runs, such as one run with several seeds.

Usage:
    python -m benchmarks.weight_attacks RESULTS RUN [RUN ...]
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from o3_lightning.common.files import read_result, write_json

FIGURES = ("leak", "base_leak", "utility", "base_utility", "learnt")


def pool(folders: list[Path]) -> dict[str, Any]:
    """Returns for each attack the mean over requests of every run, and the mean over the runs."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    results = {
        folder.name: read_result(folder / "robustness.json", "table", "environment") for folder in folders
    }
    for run, result in results.items():
        for row in result["table"]:
            if row.get("member") is None:
                found[row["attack"]][run].append(row)
    table = {}
    for attack, runs in found.items():
        figures = {
            figure: [mean(row[figure] for row in rows) for rows in runs.values()]
            for figure in FIGURES
            if all(figure in row for rows in runs.values() for row in rows)
        }
        rows = [row for rows in runs.values() for row in rows]
        table[attack] = {
            "facts": sum(row["attempts"] for row in rows),
            **{name: round(mean(values), 4) for name, values in figures.items()},
            "leak_by_run": {run: round(leak, 4) for run, leak in zip(runs, figures["leak"], strict=True)},
            "worst_leak": max(row["leak"] for row in rows),
        }
    first = next(iter(results.values()))
    return {
        "environment": first["environment"],
        "settings": first["settings"],
        "runs": list(results),
        "table": table,
    }


def main() -> None:
    """Writes the pooled table."""
    results, *runs = map(Path, sys.argv[1:])
    write_json(results, pool(runs))


if __name__ == "__main__":
    main()
