"""`o3-lightning report`: draws a run's report again, or puts several runs side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from o3_lightning.commands.common import new_parser
from o3_lightning.common.errors import InputError
from o3_lightning.common.files import write_atomically
from o3_lightning.common.yaml import read_mapping
from o3_lightning.evaluation.combined import Place
from o3_lightning.reporting.compare import ComparedRun, comparison_csv, render_comparison
from o3_lightning.run.parsing import parse
from o3_lightning.run.results import render_again
from o3_lightning.training.run_folder import RunFolder

__all__ = ["main"]

LEAST_COMPARED = 2
NEEDED = ("requests", "persistence", "utility", "utility_metrics", "columns", "detector", "u2r", "seconds")


def main(arguments: list[str]) -> None:
    """Writes a page and says where.

    Raises:
        InputError: a folder holds no finished run, or a file of it is damaged.
    """
    parser = new_parser("report", "Draws a finished run's report again, or several runs side by side.")
    parser.add_argument("run", nargs="?", help="folder of the run to draw again, such as runs/demo")
    parser.add_argument("--compare", nargs="+", metavar="RUN", help="folders of two or more finished runs")
    parser.add_argument("--beside", nargs="+", default=[], metavar="RUN", help="runs to add to its plane")
    parser.add_argument("--out", default="comparison.html", help="the page that --compare writes")
    words = parse(parser, arguments)
    if (words.run is None) == (words.compare is None):
        raise InputError("give one run's folder, or --compare with two or more")
    if words.run is not None:
        read_run(Path(words.run), words.run)
        page = render_again(RunFolder(words.run), places_of([Path(word) for word in words.beside]))
    else:
        page = compare([Path(word) for word in words.compare], Path(words.out))
    sys.stdout.write(f"written to {page}\n")


def compare(folders: list[Path], page: Path) -> Path:
    """Writes the page that shows several runs, and their numbers as CSV beside it."""
    if len(folders) < LEAST_COMPARED:
        raise InputError(f"expected two runs or more, got {len(folders)}", field="compare")
    names = names_of(folders)
    if len(set(names)) < len(names):
        raise InputError("one run was named twice", field="compare")
    runs = [read_run(folder, name) for folder, name in zip(folders, names, strict=True)]
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page, render_comparison(runs))
    write_atomically(page.with_suffix(".csv"), comparison_csv(runs))
    return page


def places_of(folders: list[Path]) -> dict[str, Place]:
    """Where other runs ended on the plane; a run without accuracies has no place."""
    runs = [read_run(folder, name) for folder, name in zip(folders, names_of(folders), strict=True)]
    return {run.name: run.metrics["plane"]["end"] for run in runs if run.metrics.get("plane")}


def names_of(folders: list[Path]) -> list[str]:
    """The last part of each path, or whole paths where those are not unique."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def read_run(folder: Path, name: str) -> ComparedRun:
    """Reads a finished run, and says what is wrong with one that is not."""
    files = RunFolder(folder)
    if not files.metrics_file.is_file():
        raise InputError("there is no finished run (no metrics.json)", path=folder)
    try:
        metrics = json.loads(files.metrics_file.read_text())
    except ValueError as error:
        raise InputError(f"is not JSON: {error}", path=files.metrics_file) from error
    missing = [key for key in NEEDED if not isinstance(metrics, dict) or key not in metrics]
    if missing:
        raise InputError("expected the metrics of a run", path=files.metrics_file, field=missing[0])
    return ComparedRun(name, metrics, read_mapping(folder / "config.yaml"))
