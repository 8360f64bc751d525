"""`python train.py reveal`: makes a model say what it knows about a topic, and writes a request."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from o3_lightning.commands.own_config import build_own, own_parser, read_own_arguments
from o3_lightning.errors import InputError
from o3_lightning.reveal.reveal import RevealConfig
from o3_lightning.reveal.search_config import SEARCHERS

__all__ = ["main"]


@dataclass(frozen=True)
class Benchmark:
    """A comparison of the searchers, in place of a search.

    Args:
        benchmark: "bandit" (regret on 20 synthetic bandits) or "authors" (what is found of
            fictitious authors, given their names); empty searches.
        authors: how many authors.
        searchers: which searchers.
        results: file of the results.
    """

    benchmark: str = ""
    authors: int = 3
    searchers: tuple[str, ...] = SEARCHERS
    results: str = "results/reveal.json"

    def __post_init__(self) -> None:
        if self.benchmark not in ("", "bandit", "authors"):
            raise InputError(f"expected bandit or authors, got {self.benchmark!r}", field="benchmark")


def main(arguments: list[str]) -> None:
    """Writes `request.jsonl`, `provenance.jsonl`, `queries.jsonl`, `config.yaml` and the report.

    Raises:
        InputError: bad input, or the folder holds another search.
        NothingRevealedError: the model said nothing about the topic; the queries stay.
    """
    parser = own_parser(
        "reveal", RevealConfig, "Makes a model say what it knows about a topic, and writes a request."
    )
    parser.add_class_arguments(Benchmark, None)
    namespace = read_own_arguments(parser, arguments)
    config, comparison = build_own(RevealConfig, namespace), build_own(Benchmark, namespace)
    if comparison.benchmark:
        sys.stdout.write("\n".join(compare(config, comparison)) + "\n")
        return
    from o3_lightning.base import load_base
    from o3_lightning.config import to_plain
    from o3_lightning.reveal.output import write_request
    from o3_lightning.reveal.reveal import reveal_topic
    from o3_lightning.reveal.summary import summarise_search
    from o3_lightning.run_folder import RunFolder

    folder = RunFolder(config.folder)
    with folder.claim(to_plain(config), to_plain(RevealConfig())):
        revealed = reveal_topic(load_base(config.base, config.seed), config, folder.path / "queries.jsonl")
        path = write_request(revealed.rows, config.identifier, folder.path)
        lines = summarise_search(revealed, config, folder.path)
    sys.stdout.write("\n".join([*lines, f"request: {path}", f"report: {folder.report_file}"]) + "\n")


def compare(config: RevealConfig, comparison: Benchmark) -> list[str]:
    """Runs a comparison and returns its table."""
    from o3_lightning.base import load_base
    from o3_lightning.reveal.benchmark import benchmark_authors, benchmark_bandit

    path = Path(comparison.results)
    if comparison.benchmark == "bandit":
        return [*benchmark_bandit(path, comparison.searchers), f"written to {path}"]
    base = load_base(config.base, config.seed)
    count, names = comparison.authors, comparison.searchers
    return [*benchmark_authors(base, config, path, authors=count, searchers=names), f"written to {path}"]
