"""`o3-lightning report`: writes a run's report again, or compares several runs on one page."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from o3_lightning.commands.common import new_parser
from o3_lightning.common.errors import InputError
from o3_lightning.common.files import read_result, write_atomically
from o3_lightning.common.yaml import read_mapping
from o3_lightning.run.parsing import load_plugins, parse

if TYPE_CHECKING:
    from o3_lightning.evaluation.figures import Place
    from o3_lightning.reporting.compare import ComparedRun

logger = logging.getLogger(__name__)

NEEDED = ("requests", "persistence", "utility", "utility_metrics", "columns", "detector", "u2r", "seconds")


def main(arguments: list[str]) -> None:
    """Writes a page and prints its path."""
    parser = new_parser("report")
    parser.add_argument("run", nargs="?", help="folder of the run, such as runs/demo")
    parser.add_argument("--compare", nargs="+", metavar="RUN", help="folders of two or more finished runs")
    parser.add_argument(
        "--beside", nargs="+", default=[], metavar="RUN", help="runs to add to the plane of the report"
    )
    parser.add_argument("--out", default="comparison.html", help="page that --compare writes")
    words = parse(parser, arguments)
    if (words.run is None) == (words.compare is None):
        raise InputError("give one run's folder, or --compare with two or more")
    if words.run is not None:
        read_run(Path(words.run), words.run)
        from o3_lightning.run.results import render_again
        from o3_lightning.training.run_folder import RunFolder

        page = render_again(RunFolder(words.run), places_of([Path(word) for word in words.beside]))
    else:
        page = compare([Path(word) for word in words.compare], Path(words.out))
    sys.stdout.write(f"written to {page}\n")


def compare(folders: list[Path], page: Path) -> Path:
    """Writes the page that compares several runs, and their numbers as CSV beside it."""
    if len(folders) < 2:
        raise InputError(f"expected two runs or more, got {len(folders)}", field="compare")
    from o3_lightning.reporting.compare import comparison_csv, render_comparison

    runs = read_runs(folders)
    if len({run.name for run in runs}) < len(runs):
        raise InputError("one run was named twice", field="compare")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page, render_comparison(runs), private=True)
    write_atomically(page.with_suffix(".csv"), comparison_csv(runs))
    return page


def places_of(folders: list[Path]) -> dict[str, Place]:
    """The places of other runs' last models on the plane; a run without accuracies has none."""
    runs = read_runs(folders)
    return {run.name: run.metrics["plane"]["end"] for run in runs if run.metrics.get("plane")}


def read_runs(folders: list[Path]) -> list[ComparedRun]:
    """Finished runs, named by the last part of each path, or by whole paths where those are not unique."""
    short = [
        Path(os.path.abspath(folder)).name for folder in folders
    ]  # follows no links, which may be a circle
    names = short if len(set(short)) == len(short) else [str(folder) for folder in folders]
    return [read_run(folder, name) for folder, name in zip(folders, names, strict=True)]


def read_run(folder: Path, name: str) -> ComparedRun:
    """A finished run; its plug-ins are loaded, which describe their metrics."""
    path = folder / "metrics.json"
    if not path.is_file():
        raise InputError("there is no finished run (no metrics.json)", path=folder)
    from o3_lightning.reporting.compare import ComparedRun

    run = ComparedRun(name, read_result(path, *NEEDED), read_mapping(folder / "config.yaml"))
    try:
        load_plugins(run.configuration.get("plugins", []), folder)
    except InputError as error:
        logger.warning("the page lacks the descriptions of a plug-in's metrics: %s", error)
    return run
