"""How well release does on several made-up authors of several worlds, of whom it is given the names alone.

What the fictitious world knows is read to measure, and by nothing that decides.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from o3_lightning.common.files import write_json
from o3_lightning.data.fictitious import build_world
from o3_lightning.release.config import ReleaseConfig
from o3_lightning.release.release import release

__all__ = ["benchmark_release", "spread"]

KEPT = ("probability_before", "probability_after", "known_after", "drop", "known_rows", "queries", "measured")


def benchmark_release(
    config: ReleaseConfig, trainer: Mapping[str, Any], path: Path, *, seeds: Sequence[int], authors: int
) -> list[str]:
    """Releases the first authors of each seed's world, one model each, and returns the result as lines.

    Args:
        config: everything but seed and topic.
        trainer: options of `lightning.Trainer`.
        path: of the results; rounds go to the configuration's folder, so a benchmark goes on after a stop.
        seeds: of worlds and their base models, at least one.
        authors: of each world, at least 1.
    """
    found = []
    for seed in seeds:
        for author in build_world(seed).authors[:authors]:
            own = replace(config, seed=seed, topic=author.name, measure="fictitious")
            start = time.process_time()
            result = release(own, trainer, config.folder / f"{seed}_{own.revealing().identifier}")
            seconds = {"wall": result["seconds"], "processor": time.process_time() - start}
            found.append({"seed": seed, "author": author.name, "seconds": seconds, **shortened(result)})
    table = spread(found)
    write_json(path, {"after": table, "authors": found})
    return [
        f"{name}: " + ", ".join(f"{split} {mean:.3f} ± {sd:.3f}" for split, (mean, sd) in row.items())
        for name, row in table.items()
    ]


def shortened(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a table needs of `release.json`."""
    rounds = [
        {name: record[name] for name in KEPT} | {"lambdas": [step["lambda"] for step in record["steps"]]}
        for record in result["rounds"]
    ]
    return {"base": result["base"]["measured"], "rounds": rounds, "stopped": result["stopped"]}


def spread(found: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Returns mean and standard deviation of each split, over authors, for the base and after each round.

    A release that ended early stays what it was in the rounds that it did without.
    """
    states = {"base": [row["base"] for row in found]}
    for number in range(max(len(row["rounds"]) for row in found)):
        states[f"round {number + 1}"] = [
            row["rounds"][min(number, len(row["rounds"]) - 1)]["measured"] for row in found
        ]
    return {
        name: {
            split: (statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
            for split in rows[0]
            for values in [[row[split] for row in rows]]
        }
        for name, rows in states.items()
    }
