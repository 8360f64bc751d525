"""Does it help that forget and retain adapter stay out of each other's way? Overlap against interference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from o3_lightning.adapter.diagnostics import overlap_matrices
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.common.errors import InputError
from o3_lightning.common.files import write_atomically, write_json
from o3_lightning.release.adapters import forget_adapter, retain_adapter
from o3_lightning.release.config import ReleaseConfig
from o3_lightning.release.context import open_context
from o3_lightning.release.steps import try_lambda

__all__ = ["COLUMNS", "overlap_study", "overlap_table", "write_study"]

COLUMNS = {
    "penalty": "factor of the orthogonality penalty while the forget adapter is trained",
    "row_overlap": "mean squared cosine between the spaces of the two lora_A",
    "column_overlap": "the same of the two lora_B",
    "update_cosine": "cosine of the two weight updates",
    "probability": "of what is to be forgotten, after subtracting with the given lambda; lower is better",
    "known": "share of its rows that are still known",
    "drop": "utility lost, KL in nats a token on neutral text; lower is better",
}


def overlap_study(
    config: ReleaseConfig, trainer: Mapping[str, Any], folder: Path, penalties: Sequence[float]
) -> list[dict[str, float]]:
    """Returns one row a penalty and lambda: overlap of the adapters, and what subtracting costs and does.

    Args:
        config: of a release with given requests.
        trainer: options of `lightning.Trainer`.
        folder: keeps the adapters; a study goes on after a stop.
        penalties: factors of the penalty in the mode "orthogonal"; 0 for none.

    Raises:
        InputError: the configuration gives no request.
    """
    if not config.requests:
        raise InputError("the study needs given rows, for instance those that reveal wrote", field="requests")
    context, rows = open_context(config, trainer, folder), []
    given = context.facts.rows
    retain = retain_adapter(context, folder / "shared")
    for penalty in penalties:
        shape = replace(config.adapter, penalty_side="both", penalty_coefficient=penalty)
        own = replace(config, mode="orthogonal" if penalty else "naive", adapter=shape)
        place = folder / f"penalty_{penalty:g}"
        forget = forget_adapter(replace(context, config=own), given, retain, place)
        found = overlap_matrices(AdapterHistory.of({"forget": forget, "retain": retain}))
        overlaps = {name: found[name][0][1] for name in ("row_overlap", "column_overlap", "update_cosine")}
        for value in sorted(config.lambdas):
            trial = try_lambda(context, given, forget, None, value)
            rows.append({"penalty": penalty, **overlaps, **trial})
    return rows


def overlap_table(rows: Sequence[Mapping[str, float]]) -> str:
    """Returns the study as a Markdown table."""
    names = ["penalty", "lambda", *(name for name in COLUMNS if name != "penalty")]
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    lines += [f"| {' | '.join(format(row[name], '.4g') for name in names)} |" for row in rows]
    meanings = [f"* {name}: {meaning}" for name, meaning in COLUMNS.items()]
    return "\n".join([*lines, "", *meanings, ""])


def plot_overlap(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draws utility lost against what is still known, one line a penalty."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for penalty in dict.fromkeys(row["penalty"] for row in rows):
        own = [row for row in rows if row["penalty"] == penalty]
        cosine = own[0]["update_cosine"]
        label = f"penalty {penalty:g} (cosine of the updates {cosine:.0e})"
        axes.plot([row["probability"] for row in own], [row["drop"] for row in own], marker="o", label=label)
    axes.set_xlabel("probability of what is to be forgotten")
    axes.set_ylabel("utility lost, nats a token")
    axes.set_yscale("symlog", linthresh=1e-3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def write_study(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Writes the study as JSON, and beside it as a table and a plot."""
    write_json(path, {"columns": COLUMNS, "rows": list(rows)})
    write_atomically(path.with_suffix(".md"), overlap_table(rows))
    plot_overlap(rows, path.with_suffix(".png"))
