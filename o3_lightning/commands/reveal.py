"""`python train.py reveal`: makes a model say what it knows about a topic, and writes a request."""

from __future__ import annotations

import sys

from o3_lightning.commands.own_config import build_own, own_parser, read_own_arguments
from o3_lightning.reveal.reveal import RevealConfig

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Writes `request.jsonl`, `provenance.jsonl`, `queries.jsonl`, `config.yaml` and the report.

    Raises:
        InputError: bad input, or the folder holds another search.
        NothingRevealedError: the model said nothing about the topic; the queries stay.
    """
    parser = own_parser(
        "reveal", RevealConfig, "Makes a model say what it knows about a topic, and writes a request."
    )
    namespace = read_own_arguments(parser, arguments)
    config = build_own(RevealConfig, namespace)
    from o3_lightning.common.plain import to_plain
    from o3_lightning.models.base import load_base
    from o3_lightning.reveal.output import write_request
    from o3_lightning.reveal.reveal import reveal_topic
    from o3_lightning.reveal.summary import summarise_search
    from o3_lightning.training.run_folder import RunFolder

    folder = RunFolder(config.folder)
    with folder.claim(to_plain(config), to_plain(RevealConfig())):
        revealed = reveal_topic(load_base(config.base, config.seed), config, folder.path / "queries.jsonl")
        path = write_request(revealed.rows, config.identifier, folder.path)
        lines = summarise_search(revealed, config, folder.path)
    sys.stdout.write("\n".join([*lines, f"request: {path}", f"report: {folder.report_file}"]) + "\n")
