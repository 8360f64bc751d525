"""`o3-lightning reveal`: elicits what a model knows about a topic, and writes it as a request."""

import sys

from o3_lightning.commands.common import config_parser, read_arguments
from o3_lightning.reveal.config import RevealConfig
from o3_lightning.run.parsing import build


def main(arguments: list[str]) -> None:
    """Writes `request.jsonl`, `provenance.jsonl`, `queries.jsonl`, `config.yaml` and the report."""
    parser = config_parser("reveal", RevealConfig)
    config = build(RevealConfig, read_arguments(parser, arguments))
    from o3_lightning.common.plain import to_plain
    from o3_lightning.models.base import load_base
    from o3_lightning.reveal.output import write_request
    from o3_lightning.reveal.reveal import reveal_topic
    from o3_lightning.reveal.summary import summarise_search
    from o3_lightning.training.run_folder import RunFolder

    folder = RunFolder(config.folder)
    with folder.claim(to_plain(config)):
        revealed = reveal_topic(load_base(config.base, config.seed), config, folder.path / "queries.jsonl")
        path = write_request(revealed.rows, config.identifier, folder.path)
        lines = summarise_search(revealed, config, folder.path)
    sys.stdout.write("\n".join([*lines, f"request: {path}", f"report: {folder.report_file}"]) + "\n")
