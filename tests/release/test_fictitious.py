"""Slow: one made-up author is revealed from the name alone, released, and unlearned through a gate."""

from pathlib import Path

import pytest

from benchmarks.reveal.experiment import coverage
from o3_lightning.commands.common import config_parser, read_arguments
from o3_lightning.models.base import load_base
from o3_lightning.release.config import ReleaseConfig
from o3_lightning.release.context import measure_author
from o3_lightning.release.release import release
from o3_lightning.reveal.config import RevealConfig
from o3_lightning.reveal.output import write_request
from o3_lightning.reveal.reveal import reveal_topic
from o3_lightning.reveal.reward import find_author
from o3_lightning.run.parsing import build

CONFIGS = Path(__file__).parents[2] / "configs"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def revealing():
    path = str(CONFIGS / "reveal_fictitious.yaml")
    namespace = read_arguments(config_parser("reveal", RevealConfig), ["--config", path])
    return build(RevealConfig, namespace)


@pytest.fixture(scope="module")
def revealed(revealing, tmp_path_factory):
    log = tmp_path_factory.mktemp("reveal") / "log.jsonl"
    return reveal_topic(load_base(revealing.base, revealing.seed), revealing, log)


def test_the_name_alone_reveals_most_attributes(revealing, revealed):
    assert len(revealed.entries) <= 165
    assert revealing.reward.scorer == "contrast"
    found = coverage(revealed.entries, find_author(revealing.topic, revealing.seed), revealing)
    assert found["recall"] >= 0.8
    assert found["precision"] >= 0.8


def test_a_release_forgets_the_author_and_no_other(tmp_path):
    namespace = read_arguments(
        config_parser("release", ReleaseConfig, trainer=True),
        ["--config", str(CONFIGS / "release_fictitious.yaml")],
    )
    config = build(ReleaseConfig, namespace)
    result = release(config, {"accelerator": "cpu"}, tmp_path)
    before, after = result["base"]["measured"], result["rounds"][-1]["measured"]
    assert after["held_out"] <= 0.15
    assert after["others"] >= 0.90 * before["others"]


def test_a_revealed_request_is_unlearned_through_the_gate(revealing, revealed, tmp_path):
    from o3_lightning.gating.model import GatedModel
    from o3_lightning.run.parsing import config_from
    from o3_lightning.run.pipeline import run_stream

    path = write_request(revealed.rows, revealing.identifier, tmp_path)
    config, trainer = config_from(
        {
            "name": "revealed",
            "output": str(tmp_path),
            "data": {"name": "jsonl", "requests": [str(path)]},
            "objective": {"forget": {"name": "random_labels"}},
        }
    )
    folder = run_stream(config, trainer)
    gated = GatedModel.from_store(folder / "store", load_base(config.base, config.seed))
    found = measure_author(gated.answer, revealing.topic, config.seed)
    assert found["held_out"] <= 0.10
    assert min(found["others"], found["general"]) >= 0.98
