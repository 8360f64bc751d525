"""`python -m benchmarks.release`: releases made-up authors, or compares adapters by their overlap."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.release.authors import benchmark_release
from benchmarks.release.overlap import overlap_study, overlap_table, write_study
from o3_lightning.commands.common import config_parser, read_arguments
from o3_lightning.common.errors import InputError
from o3_lightning.release.config import ReleaseConfig
from o3_lightning.run.parsing import build, trainer_options


@dataclass(frozen=True)
class Study:
    """What is measured.

    Args:
        overlap: penalties of a study that compares forget adapters with more and less overlap with a retain
            adapter; needs given requests.
        worlds: seeds of fictitious worlds whose first authors are released, each from a model of its own,
            given the names alone.
        authors: of each world, at least 1.
        results: file of the results; the overlap study's table and plot are written beside it.

    Raises:
        InputError: fewer than one author, or a seed below 0.
    """

    overlap: tuple[float, ...] = ()
    worlds: tuple[int, ...] = ()
    authors: int = 1
    results: str = "results/release.json"

    def __post_init__(self) -> None:
        if self.authors < 1:
            raise InputError(f"expected 1 or more, got {self.authors}", field="authors")
        if any(seed < 0 for seed in self.worlds):
            raise InputError(f"expected seeds >= 0, got {list(self.worlds)}", field="worlds")


def main(arguments: list[str]) -> None:
    """Measures, writes and prints.

    Raises:
        InputError: bad input, or neither penalties nor worlds.
    """
    parser = config_parser("release", ReleaseConfig, Study, trainer=True)
    parser.description = "Measures releases."
    namespace = read_arguments(parser, arguments)
    config, study = build(ReleaseConfig, namespace), build(Study, namespace)
    if not study.overlap and not study.worlds:
        raise InputError("give --overlap PENALTIES or --worlds SEEDS")
    trainer, path = trainer_options(namespace), Path(study.results)
    if study.overlap:
        rows = overlap_study(config, trainer, config.folder / "overlap", study.overlap)
        write_study(rows, path)
        lines = [overlap_table(rows)]
    else:
        lines = benchmark_release(config, trainer, path, seeds=study.worlds, authors=study.authors)
    sys.stdout.write("\n".join([*lines, f"written to {path}"]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
