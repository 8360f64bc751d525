"""Sends a finished run to Weights & Biases: tables, plots, the report, and the store as an artifact."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from o3_lightning.evaluation.figures import headline
from o3_lightning.reporting.long_form import COLUMNS, rows_of
from o3_lightning.reporting.report import ReportDetails

logger = logging.getLogger(__name__)

FILES, PAGE = ("metrics.json", "metrics.csv", "config.yaml"), "report.html"
ATTACKS = ("attack", "member", "request", "leak", "base_leak", "caught", "false_alarm", "utility")
TEXTS = ("request", "split", "prompt", "truth", "before", "after")
Rows = tuple[list[str | int], list[list[Any]]]


def publish(
    run: Any,
    folder: Path,
    metrics: Mapping[str, Any],
    details: ReportDetails,
    step: int | None = None,
    *,
    text: bool = False,
) -> None:
    """Sends a finished run to `run` of Weights & Biases; a failure is logged and does not affect the run.

    `FILES` and `store` of the run's folder are sent as artifacts; with `text` also what may hold prompts and
    answers: the report and the tables of samples and mistakes. `step` comes after the run's last; None lets
    the service count.
    """
    try:
        send(run, folder, metrics, details if text else replace(details, samples=(), mistakes={}), step, text)
    except Exception as error:  # an unavailable service must not fail a finished run
        logger.warning("Weights & Biases took no tables or artifacts: %s", " ".join(str(error).split()))


def send(
    run: Any, folder: Path, metrics: Mapping[str, Any], details: ReportDetails, step: int | None, text: bool
) -> None:
    """Logs tables and plots, and hands the files over."""
    import wandb  # optional, imported only on use

    run.config.update(yaml.safe_load(details.configuration), allow_val_change=True)
    run.summary.update({f"headline/{name}": value for name, value in headline(metrics).items()})
    tables = {
        f"tables/{name}": wandb.Table(columns=columns, data=rows)
        for name, (columns, rows) in tables_of(metrics, details).items()
    }
    lines = {
        f"forget/{split}": dict(zip(matrix["rows"], matrix["values"], strict=True))
        for split, matrix in metrics["persistence"].get("accuracy", {}).items()
    }
    if metrics["utility"]:
        lines["utility"] = metrics["utility"]
    plots = {f"plots/{name}": plot_of(wandb, name, part) for name, part in lines.items()}
    page = {"report": wandb.Html(str(folder / PAGE))} if text else {}
    run.log({**tables, **plots, **page}, step=step)
    files = [folder / name for name in (*FILES, *([PAGE] if text else []))]
    for kind, paths in (("report", files), ("store", [folder / "store"])):
        artifact = wandb.Artifact(f"{folder.name}-{kind}", type=kind)
        for path in paths:
            if path.is_dir():
                artifact.add_dir(str(path))
            elif path.is_file():
                artifact.add_file(str(path))
        run.log_artifact(artifact)


def tables_of(metrics: Mapping[str, Any], details: ReportDetails) -> dict[str, Rows]:
    """Returns columns and rows of every table by name; a table without rows is left out.

    `metrics` (as in `metrics.csv`), `robustness`, and, only if the run kept text, `mistakes` and `samples`.
    """
    numbers = [
        [None if cell == "" else float(cell) if isinstance(cell, int) else cell for cell in row]
        for row in rows_of(metrics)
    ]
    wrong = [
        [request, row["split"], row["prompt"], row["weight"]]
        for request, rows in details.mistakes.items()
        for row in rows
    ]
    found: dict[str, Rows] = {
        "metrics": (list(COLUMNS), numbers),
        "robustness": (list(ATTACKS), [[row.get(key) for key in ATTACKS] for row in details.robustness]),
        "mistakes": (["request", "split", "prompt", "weight"], wrong),
        "samples": (list(TEXTS), [[sample.get(key) for key in TEXTS] for sample in details.samples]),
    }
    return {name: table for name, table in found.items() if table[1]}


def plot_of(wandb: Any, title: str, lines: Mapping[str, Any]) -> Any:
    """One plot of accuracies over the states of the model; 0 is the base model."""
    return wandb.plot.line_series(
        xs=list(range(max(map(len, lines.values())))),
        ys=list(lines.values()),
        keys=list(lines),
        title=f"accuracy: {title}",
        xname="requests unlearned",
    )
