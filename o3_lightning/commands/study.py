"""`o3-lightning study`: compares whole runs, every variant with every seed."""

import sys
from pathlib import Path

from o3_lightning.commands.common import new_parser
from o3_lightning.common.errors import InputError
from o3_lightning.common.shipped import find_file
from o3_lightning.run.parsing import parse

EXAMPLE = "experiments/baselines"


def main(arguments: list[str]) -> None:
    """Runs or continues a study, and prints its table."""
    parser = new_parser("study")
    parser.add_argument(
        "--config",
        action="append",
        help=f"the study: a YAML file or a shipped name, such as {EXAMPLE}; given again, a configuration "
        "that its variants build on",
    )
    parser.add_argument("--name", default="", help="of the study; empty joins the names of the files")
    parser.add_argument(
        "--seeds", type=list[int], default=None, help="in place of those of the file, such as '[0]'"
    )
    parser.add_argument("--output", default="runs", help="folder of the run folders")
    parser.add_argument("--results", default="results", help="folder of the result files")
    parser.add_argument(
        "--dry_run",
        type=bool,
        default=False,
        help="print the command of each unfinished run and the expected time; runs nothing",
    )
    words = parse(parser, arguments)
    if words.config is None:
        raise InputError(f"give --config FILE, a study such as {EXAMPLE}")
    path, *over = (find_file(name) for name in words.config)
    from o3_lightning.run.study import read_study, run_study
    from o3_lightning.run.study_table import table

    study = read_study(path, over, words.name, words.seeds)
    if words.dry_run:
        from o3_lightning.run.dry_run import lines_of

        sys.stdout.writelines(f"{line}\n" for line in lines_of(study, Path(words.output)))
        return
    content = run_study(study, Path(words.output), Path(words.results))
    sys.stdout.write(f"{table(content)}\nwritten to {Path(words.results) / study.name}.json and .md\n")
