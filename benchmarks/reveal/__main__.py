"""`python -m benchmarks.reveal`: compares the searchers on bandits, or on fictitious authors."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reveal.experiment import benchmark_authors, benchmark_bandit
from o3_lightning.commands.common import config_parser, read_arguments
from o3_lightning.common.errors import InputError
from o3_lightning.models.base import load_base
from o3_lightning.reveal.config import SEARCHERS, RevealConfig
from o3_lightning.run.parsing import build


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Args:
        benchmark: "bandit" (regret on 20 synthetic bandits) or "authors" (what is found of fictitious
            authors, given their names).
        authors: how many authors.
        searchers: which searchers.
        results: file of the results.

    Raises:
        InputError: another benchmark.
    """

    benchmark: str = "bandit"
    authors: int = 3
    searchers: tuple[str, ...] = SEARCHERS
    results: str = "results/reveal.json"

    def __post_init__(self) -> None:
        if self.benchmark not in ("bandit", "authors"):
            raise InputError(f"expected bandit or authors, got {self.benchmark!r}", field="benchmark")


def main(arguments: list[str]) -> None:
    """Compares, writes and prints.

    Raises:
        InputError: bad input.
    """
    parser = config_parser("reveal", RevealConfig, Comparison)
    parser.description = "Compares the searchers under one budget."
    namespace = read_arguments(parser, arguments)
    config, comparison = build(RevealConfig, namespace), build(Comparison, namespace)
    path = Path(comparison.results)
    if comparison.benchmark == "bandit":
        lines = benchmark_bandit(path, comparison.searchers)
    else:
        base = load_base(config.base, config.seed)
        count, names = comparison.authors, comparison.searchers
        lines = benchmark_authors(base, config, path, authors=count, searchers=names)
    sys.stdout.write("\n".join([*lines, f"written to {path}"]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
