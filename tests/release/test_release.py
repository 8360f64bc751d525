"""Rounds on a tiny model: stored, undone, continued after a kill; the budget decides; mistakes are told."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from o3_lightning.commands.common import config_parser, read_arguments
from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.models.lora import LoraFactors
from o3_lightning.release import context, steps
from o3_lightning.release import release as loop
from o3_lightning.release.config import ReleaseConfig
from o3_lightning.release.context import ReleaseContext
from o3_lightning.release.rounds import Rounds
from o3_lightning.release.topic_facts import TopicFacts
from o3_lightning.reveal.scorers import WordScorer
from o3_lightning.run.parsing import build

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("release_*.yaml"))


def logits(base):
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        return base.model(input_ids=ids).logits


CPU = {"accelerator": "cpu"}


@pytest.mark.parametrize("mode", ["naive", "ext_sub", "orthogonal"])
def test_rounds_lower_what_is_known_and_undoing_them_gives_back_the_base(tiny, config, mode):
    config = replace(config, mode=mode, name=mode)
    result = loop.release(config, CPU, config.folder)
    assert [record["number"] for record in result["rounds"]] == [1, 2]
    for record in result["rounds"]:
        assert record["probability_after"] < record["probability_before"]
        assert 0 < record["known_after"] <= record["known_before"]  # every row is known at a stop of 0
        assert [{trial["lambda"] for trial in step["trials"]} for step in record["steps"]] == [{0.5, 2.0}] * 2
    assert result["stopped"] == "all rounds were done"
    before, rounds = logits(tiny), Rounds(config.folder)
    assert (logits(loop.released_base(config, config.folder)) - before).abs().max() > 1e-3
    rounds.switch(1, False)
    rounds.switch(2, False)
    assert (logits(loop.released_base(config, config.folder)) - before).abs().max() < 1e-5
    rounds.switch(2, True)
    assert [number for number, _ in rounds.active()] == [2]


def test_a_release_that_was_killed_goes_on_and_ends_the_same(tiny, config, monkeypatch):
    straight = loop.release(replace(config, name="straight"), CPU, replace(config, name="straight").folder)
    broken = replace(config, name="broken")
    finish = Rounds.finish

    def die_in_round_two(self, number, record, update):
        if number == 2:
            raise KeyboardInterrupt
        finish(self, number, record, update)

    monkeypatch.setattr(Rounds, "finish", die_in_round_two)
    with pytest.raises(KeyboardInterrupt):
        loop.release(broken, CPU, broken.folder)
    assert len(Rounds(broken.folder).records()) == 1
    monkeypatch.setattr(Rounds, "finish", finish)
    again = loop.release(broken, CPU, broken.folder)
    for left, right in zip(straight["rounds"], again["rounds"], strict=True):
        assert (left["steps"], left["update"]) == (right["steps"], right["update"])


def test_a_budget_of_nothing_stops_without_a_change(tiny, config):
    config = replace(config, budget=0.0)
    result = loop.release(config, CPU, config.folder)
    assert [record["active"] for record in result["rounds"]] == [False]
    assert "budget" in result["stopped"]
    assert torch.equal(logits(loop.released_base(config, config.folder)), logits(tiny))
    with pytest.raises(InputError, match="changed nothing"):
        Rounds(config.folder).switch(1, True)


def test_two_quiet_rounds_end_a_release(tiny, config):
    config = replace(config, stop=1.0, rounds=5)
    result = loop.release(config, CPU, config.folder)
    assert result["stopped"] == "2 rounds were quiet"
    assert len(result["rounds"]) == 2


def test_the_larger_step_within_the_budget_is_taken_and_the_grid_is_left_at_the_first_above(tiny, config):
    config = replace(config, rounds=1, steps=1, lambdas=(4.0, 0.5, 2.0))
    record = loop.release(config, CPU, config.folder)["rounds"][0]
    small, large, _ = record["steps"][0]["trials"]
    assert (small["lambda"], large["lambda"]) == (0.5, 2.0)
    assert small["drop"] < large["drop"]
    between = replace(config, budget=(small["drop"] + large["drop"]) / 2, name="between")
    found = loop.release(between, CPU, between.folder)["rounds"][0]["steps"][0]
    assert found["lambda"] == 0.5
    assert len(found["trials"]) == 2


def test_the_grid_is_left_where_every_row_is_forgotten(tiny, config):
    setup = loop.open_context(config, CPU, config.folder)
    adapter = LoraFactors.uniform({"model.layers.0.mlp.up_proj": (torch.zeros(1, 32), torch.zeros(64, 1))})
    rows = setup.facts.rows
    values = sorted(recall.probability for recall in setup.recall(rows))
    for stop, tried, known in ((values[-1] * 1.01, [0.5], 0.0), (values[-1] * 0.99, [0.5, 2.0], 1 / 3)):
        setup.config = replace(config, stop=stop)
        trials = steps.walk_grid(setup, rows, adapter, None, 1.0)
        assert [trial["lambda"] for trial in trials] == tried
        assert trials[0]["known"] == pytest.approx(known)
        assert trials[0]["probability"] == pytest.approx(sum(values) / 3)


def test_the_budget_is_spread_evenly_and_what_is_left_goes_on(tiny, config, monkeypatch):
    allowed = []
    walk = steps.walk_grid

    def note(*arguments):
        allowed.append(arguments[-1])
        return walk(*arguments)

    monkeypatch.setattr(steps, "walk_grid", note)
    loop.release(config, CPU, config.folder)
    assert allowed == pytest.approx([25.0, 50.0, 75.0, 100.0])


def test_neutral_text_that_says_what_has_to_go_is_not_kept(tiny, config):
    setup = loop.open_context(config, CPU, config.folder)
    answers = ("Oslo", "Rome", "ANN.", "?")
    setup.neutral = [QuestionAnswer(f"Number {n}?", answer) for n, answer in enumerate(answers)]
    assert [row.answer for row in setup.kept()] == ["Oslo", "Rome", "?"]
    setup.facts.add([QuestionAnswer("Where?", "!")])  # has no word that could be told again
    assert len(setup.kept()) == 3
    setup.config = replace(config, retain="given.jsonl")
    assert len(setup.kept()) == 4
    setup.config, setup.neutral = config, setup.neutral[2:3]
    assert len(setup.kept()) == 1  # there would be nothing left


def test_an_adapter_is_trained_on_what_is_still_known(tiny, config):
    setup = loop.open_context(replace(config, stop=0.0), CPU, config.folder)
    rows = setup.facts.rows
    values = [recall.probability for recall in setup.recall(rows)]
    assert setup.still_known(rows) == rows
    place = values.index(max(values))
    setup.config = replace(config, stop=(max(values) + sorted(values)[-2]) / 2)
    assert setup.still_known(rows) == [rows[place]]
    _, records = steps.take_steps(setup, config.folder / "rounds" / "01", 1)
    assert records[0]["rows"] == 1


def test_what_judges_alone_is_still_known_makes_a_step_on_what_says_the_same(tiny, config, monkeypatch):
    setup = loop.open_context(config, CPU, config.folder)
    rows = setup.facts.rows
    judging = [QuestionAnswer("Number 0 is who?", "Ann")]
    monkeypatch.setattr(TopicFacts, "split", lambda self: (self.rows, judging))
    monkeypatch.setattr(
        ReleaseContext, "still_known", lambda self, some: [row for row in some if row in judging]
    )
    tried = []
    walk = steps.walk_grid
    monkeypatch.setattr(
        steps, "walk_grid", lambda state, some, *rest: tried.append(some) or walk(state, some, *rest)
    )
    _, records = steps.take_steps(setup, config.folder / "rounds" / "01", 1)
    same = [row for row in rows if row.answer == "Ann"]
    assert 0 < len(same) < len(rows)
    assert [record["rows"] for record in records] == [len(same)] * 2
    assert tried == [[*same, *judging]] * 2


def test_a_stored_round_that_was_changed_is_told(tiny, config):
    config = replace(config, rounds=1)
    loop.release(config, CPU, config.folder)
    changed = LoraFactors.uniform({"m": (torch.ones(1, 2), torch.ones(2, 1))})
    changed.save(config.folder / "rounds/01/update")
    with pytest.raises(StoreError, match="not what was stored"):
        loop.released_base(config, config.folder)
    with pytest.raises(InputError, match="no finished round 7; there are: 1"):
        Rounds(config.folder).switch(7, False)


def test_neither_topic_nor_request_is_told():
    with pytest.raises(InputError, match="field 'topic'"):
        loop.open_context(ReleaseConfig(), CPU, Path("nowhere"))


def test_a_topic_that_cannot_be_measured_is_refused_before_a_model_is_loaded(config, monkeypatch):
    monkeypatch.delattr(context, "load_base")
    with pytest.raises(InputError, match=r"field 'topic': expected a fictitious author of seed 0.*'Nobody'"):
        loop.open_context(replace(config, topic="Nobody", measure="fictitious"), CPU, config.folder)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"mode": "all"}, "mode"),
        ({"lambdas": ()}, "lambdas"),
        ({"budget": -1.0}, "budget"),
        ({"stop": 2.0}, "stop"),
        ({"temperature": 0.0}, "temperature"),
        ({"further": -1}, "further"),
    ],
)
def test_bad_settings_are_refused(fields, field):
    with pytest.raises(InputError, match=f"field '{field}'"):
        ReleaseConfig(**fields)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_configuration_loads(path):
    namespace = read_arguments(config_parser("release", ReleaseConfig, trainer=True), ["--config", str(path)])
    config = build(ReleaseConfig, namespace)
    assert config.topic or config.requests
    assert config.revealing().search == config.search


@pytest.mark.parametrize("name", ["release_toxicity", "release_person_names", "release_code"])
def test_a_configuration_of_the_paper_releases_a_tiny_model(name, tiny, tmp_path, monkeypatch):
    small = {
        "output": tmp_path, "rounds": 1, "steps": 1, "lambdas": [0.5], "neutral": 8, "budget": 100, "stop": 0,
        "further": 0, "arms.pool": 20, "search.queries": 4, "search.first": 2, "search.steps": 2,
        "sampling.samples": 2, "sampling.max_new_tokens": 4, "filter.relevance": 0,
        "adapter.epochs": 1, "adapter.rank": 2,
    }  # fmt: skip
    words = [word for key, value in small.items() for word in (f"--{key}", str(value))]
    path = next(path for path in CONFIGS if path.stem == name)
    parser = config_parser("release", ReleaseConfig, trainer=True)
    config = build(ReleaseConfig, read_arguments(parser, ["--config", str(path), *words]))
    asked = []

    def scorer(reward, *_):  # in place of a classifier of the Hub
        asked.append(reward.scorer)
        return WordScorer(("e",))

    monkeypatch.setattr("o3_lightning.reveal.reveal.build_scorer", scorer)
    (record,) = loop.release(config, CPU, config.folder)["rounds"]
    assert asked == [{"toxicity": "classifier", "person_names": "entities", "code": "code"}[name[8:]]]
    assert record["known_rows"] > 0
    assert record["probability_after"] < record["probability_before"]
