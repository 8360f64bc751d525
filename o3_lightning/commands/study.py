"""`python train.py study`: compares whole runs, every variant with every seed."""

from __future__ import annotations

import sys
from pathlib import Path

from jsonargparse import ArgumentParser

from o3_lightning.common.errors import InputError
from o3_lightning.run.config import parse

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Runs a study, or continues it, and prints its table.

    Raises:
        InputError: no study was named, or a part of it is wrong.
    """
    parser = ArgumentParser(
        prog="train.py study",
        description="Runs every variant of a study with every seed and prints mean and deviation.",
        exit_on_error=False,
    )
    parser.add_argument("--config", help="the study, such as configs/experiments/baselines.yaml")
    parser.add_argument("--output", default="runs", help="folder of the run folders")
    parser.add_argument("--results", default="results", help="folder of the result files")
    words = parse(parser, arguments)
    if words.config is None:
        raise InputError("give --config FILE, a study such as configs/experiments/baselines.yaml")
    from o3_lightning.run.study import read_study, run_study, table

    study = read_study(words.config)
    content = run_study(study, Path(words.output), Path(words.results))
    sys.stdout.write(f"{table(content)}\nwritten to {Path(words.results) / study.name}.json and .md\n")
