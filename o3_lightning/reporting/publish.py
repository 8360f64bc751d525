"""A finished run at Weights & Biases: tables, plots, the report, and the store as an artifact."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from o3_lightning.evaluation.headline import headline
from o3_lightning.reporting.long_form import COLUMNS, long_form
from o3_lightning.reporting.report_data import ReportDetails

__all__ = ["publish", "tables_of"]

logger = logging.getLogger(__name__)

FILES = ("metrics.json", "metrics.csv", "report.html", "config.yaml")
NUMBERS = ("value", "low", "high")
ATTACKS = ("attack", "member", "request", "leak", "base_leak", "caught", "false_alarm", "utility")
TEXTS = ("request", "split", "prompt", "truth", "before", "after")
Rows = tuple[list[str | int], list[list[Any]]]


def publish(
    run: Any, folder: Path, metrics: Mapping[str, Any], details: ReportDetails, step: int | None = None
) -> None:
    """Sends a finished run; what fails is told in the log and costs the run nothing.

    Args:
        run: a run of Weights & Biases, online or offline.
        folder: of the run; `FILES` and `store` of it are sent as artifacts.
        metrics: the content of `metrics.json`.
        details: what the report shows; prompts and answers are sent only where the run kept some.
        step: after the run's last; None lets the service count.
    """
    try:
        send(run, folder, metrics, details, step)
    except Exception as error:  # a service that is away must not cost a finished run
        logger.warning("Weights & Biases took no tables or artifacts: %s", " ".join(str(error).split()))


def send(
    run: Any, folder: Path, metrics: Mapping[str, Any], details: ReportDetails, step: int | None
) -> None:
    """Logs tables and plots, and hands the files over."""
    import wandb  # only where it is asked for

    run.config.update(yaml.safe_load(details.configuration), allow_val_change=True)
    run.summary.update({f"headline/{name}": value for name, value in headline(metrics).items()})
    tables = {
        f"tables/{name}": wandb.Table(columns=columns, data=rows)
        for name, (columns, rows) in tables_of(metrics, details).items()
    }
    pages = {"report": wandb.Html(str(folder / "report.html"))}
    run.log({**tables, **plots_of(wandb, metrics), **pages}, step=step)
    for kind, paths in (("report", [folder / name for name in FILES]), ("store", [folder / "store"])):
        artifact = wandb.Artifact(f"{folder.name}-{kind}", type=kind)
        for path in paths:
            if path.is_dir():
                artifact.add_dir(str(path))
            elif path.is_file():
                artifact.add_file(str(path))
        run.log_artifact(artifact)


def tables_of(metrics: Mapping[str, Any], details: ReportDetails) -> dict[str, Rows]:
    """Returns columns and rows of every table by name; a table without rows is left out.

    Args:
        metrics: the content of `metrics.json`.
        details: what the report shows.

    Returns:
        `metrics` (as in `metrics.csv`), `robustness`, and, only where the run kept text, `mistakes` and
        `samples`.
    """
    numbers = [
        [float(cell) if name in NUMBERS and cell else cell or None for name, cell in row.items()]
        for row in csv.DictReader(io.StringIO(long_form(metrics)))
    ]
    wrong = [
        [request, row["split"], row["prompt"], row["weight"]]
        for request, rows in details.mistakes.items()
        for row in rows
    ]
    found: dict[str, Rows] = {
        "metrics": (list(COLUMNS), numbers),
        "robustness": (
            list(ATTACKS),
            [[row.get(key) for key in ATTACKS] for row in details.robustness],
        ),
        "mistakes": (["request", "split", "prompt", "weight"], wrong),
        "samples": (list(TEXTS), [[sample.get(key) for key in TEXTS] for sample in details.samples]),
    }
    return {name: table for name, table in found.items() if table[1]}


def plots_of(wandb: Any, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A line a request, and a line a utility split, over the states of the model."""
    lines = {
        f"forget/{split}": matrix for split, matrix in metrics["persistence"].get("accuracy", {}).items()
    }
    plots = {
        f"plots/{name}": lines_over_requests(
            wandb, name, dict(zip(matrix["rows"], matrix["values"], strict=True))
        )
        for name, matrix in lines.items()
    }
    if metrics["utility"]:
        plots["plots/utility"] = lines_over_requests(wandb, "utility", metrics["utility"])
    return plots


def lines_over_requests(wandb: Any, title: str, lines: Mapping[str, Any]) -> Any:
    """One plot of accuracies; 0 is the base model."""
    columns = list(range(max(map(len, lines.values()))))
    return wandb.plot.line_series(
        xs=columns,
        ys=list(lines.values()),
        keys=list(lines),
        title=f"accuracy: {title}",
        xname="requests unlearned",
    )
