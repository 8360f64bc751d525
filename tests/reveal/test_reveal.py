"""Reveal on a tiny model: a log reproduces and continues a search, rows are filtered, mistakes are told."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from o3_lightning.commands.common import config_parser, read_arguments
from o3_lightning.common.errors import InputError
from o3_lightning.data.fictitious import build_world
from o3_lightning.data.requests import read_requests
from o3_lightning.reveal.arms import (
    PHRASES,
    Arm,
    ArmsConfig,
    build_arms,
    questions,
)
from o3_lightning.reveal.config import RevealConfig, RewardConfig, SamplingConfig, SearchConfig
from o3_lightning.reveal.log import Entry
from o3_lightning.reveal.output import (
    FilterConfig,
    Revealed,
    add_wrong_answers,
    select_rows,
    write_request,
)
from o3_lightning.reveal.reveal import NothingRevealedError, Search, reveal_topic
from o3_lightning.reveal.speaking import Speaker
from o3_lightning.reveal.summary import report_search
from o3_lightning.run.parsing import build

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("reveal_*.yaml"))
TOPIC = "Abelrick Skarnholt"


def small(**fields):
    return RevealConfig(
        topic=TOPIC,
        arms=ArmsConfig(pool=60),
        search=SearchConfig(queries=10, first=4, hidden=8, steps=10),
        sampling=SamplingConfig(samples=3, max_new_tokens=4),
        reward=RewardConfig(scorer="words", words=("e",)),
        filter=FilterConfig(relevance=0.0),
        **fields,
    )


def fail(*_):
    raise AssertionError("the model was asked although the log has the answer")


@pytest.fixture(scope="module")
def searched(tiny_base, tmp_path_factory):
    """A search: what it found, its log, and the model and the random state before and after it."""
    before = {name: value.clone() for name, value in tiny_base.model.state_dict().items()}
    states, path = [torch.random.get_rng_state()], tmp_path_factory.mktemp("searched") / "log.jsonl"
    found = reveal_topic(tiny_base, small(), path)
    states.append(torch.random.get_rng_state())
    after = {name: value.clone() for name, value in tiny_base.model.state_dict().items()}
    return SimpleNamespace(found=found, log=path.read_text(), weights=(before, after), states=states)


def test_a_log_reproduces_the_search_without_asking_the_model(searched, tiny_base, tmp_path, monkeypatch):
    (tmp_path / "log.jsonl").write_text(searched.log)
    monkeypatch.setattr(Speaker, "answers", fail)
    assert reveal_topic(tiny_base, small(), tmp_path / "log.jsonl") == searched.found
    assert (tmp_path / "log.jsonl").read_text() == searched.log


def test_a_search_that_was_killed_in_the_middle_of_a_line_goes_on_and_ends_the_same(
    searched, tiny_base, tmp_path
):
    lines = searched.log.splitlines(keepends=True)
    (tmp_path / "cut.jsonl").write_text("".join(lines[:6]) + lines[6][:20])
    assert reveal_topic(tiny_base, small(), tmp_path / "cut.jsonl") == searched.found


def test_the_log_of_another_search_is_refused(searched, tiny_base, tmp_path):
    (tmp_path / "log.jsonl").write_text(searched.log)
    with pytest.raises(InputError, match=r"the log of another search \(configuration\)"):
        reveal_topic(tiny_base, small(seed=1), tmp_path / "log.jsonl")


def test_the_model_is_as_it_was(searched):
    before, after = searched.weights
    assert all(torch.equal(before[name], value) for name, value in after.items())
    assert torch.equal(*searched.states)


def test_a_silent_model_is_told_and_its_queries_stay(tiny_base, tmp_path, monkeypatch):
    monkeypatch.setattr(Speaker, "answers", lambda *_: [])
    with pytest.raises(NothingRevealedError, match="the model answered nothing to 10 instructions"):
        reveal_topic(tiny_base, small(), tmp_path / "log.jsonl")
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 11


def test_a_model_that_knows_nothing_is_told_and_its_queries_stay(tiny_base, tmp_path):
    config = replace(small(), filter=FilterConfig(relevance=1.0), reward=RewardConfig(scorer="contrast"))
    with pytest.raises(NothingRevealedError, match=f"nothing about '{TOPIC}' in 10 queries"):
        reveal_topic(tiny_base, config, tmp_path / "log.jsonl")
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 11


def test_no_topic_and_a_topic_that_the_truth_does_not_know_are_told(tiny_base, tmp_path):
    with pytest.raises(InputError, match="field 'topic': expected what the model is to talk about"):
        reveal_topic(tiny_base, replace(small(), topic=" "), tmp_path / "log.jsonl")
    config = replace(small(), topic="Nobody", reward=RewardConfig(scorer="truth"))
    with pytest.raises(InputError, match="field 'topic': expected a fictitious author of seed 0, such as"):
        reveal_topic(tiny_base, config, tmp_path / "log.jsonl")


def test_soft_prompts_are_searched_too(tiny_base, tmp_path):
    arms = ArmsConfig(family="soft", pool=30, soft_question="Who is {topic}?")
    revealed = reveal_topic(tiny_base, replace(small(), arms=arms), tmp_path / "log.jsonl")
    assert len(revealed.entries) == 10


def test_soft_tokens_stand_after_the_opening_of_the_template(tiny_base):
    speaker = Speaker(tiny_base, SamplingConfig())
    soft = torch.full((2, 32), 7.0)
    plain, with_soft = (speaker.embed(Arm("Who?", part), "") for part in (None, soft))
    place = [bool((row == 7).all()) for row in with_soft].index(True)
    opening = tiny_base.tokenizer("Question: ")["input_ids"]
    assert 0 < place <= len(opening)
    assert torch.equal(torch.cat([with_soft[:place], with_soft[place + 2 :]]), plain)


def test_a_context_does_not_depend_on_the_batch(tiny_base):
    arms = build_arms(ArmsConfig(pool=9), 0, 32)
    together = Speaker(tiny_base, SamplingConfig()).contexts(arms, TOPIC)
    alone = Speaker(tiny_base, SamplingConfig(batch_size=1)).contexts(arms, TOPIC)
    assert torch.allclose(together, alone, atol=1e-5)


def test_likelihoods_are_what_the_model_gives_each_token(tiny_base):
    speaker = Speaker(tiny_base, SamplingConfig(batch_size=1))
    prompts, answers = ["Who is Ann?", "Where is it?"], ["a nurse", "Oslo"]
    found = speaker.likelihoods(prompts, answers)
    assert Speaker(tiny_base, SamplingConfig()).likelihoods(prompts, answers) == pytest.approx(
        found, abs=1e-6
    )
    ids = tiny_base.tokenizer("Question: Who is Ann?\nAnswer: a nurse")["input_ids"]
    start = len(tiny_base.tokenizer("Question: Who is Ann?\nAnswer:")["input_ids"])
    ids = [*ids, tiny_base.tokenizer.eos_token_id]
    with torch.inference_mode():
        likely = tiny_base.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    values = [likely[place - 1, ids[place]] for place in range(start, len(ids))]
    assert found[0] == pytest.approx(float(torch.stack(values).mean().exp()), abs=1e-6)


def test_the_pool_names_the_topic_as_often_as_it_says():
    arms = build_arms(ArmsConfig(pool=6000, general_subjects=60), 0, 8)
    share = sum(arm.names_topic for arm in arms) / len(arms)
    assert share == pytest.approx(1 / 61, rel=0.3)
    assert all(arm.names_topic for arm in build_arms(ArmsConfig(pool=300), 0, 8))
    assert len({arm.text for arm in arms}) == len(arms)


def test_no_instruction_holds_a_fact_of_the_benchmark():
    text = " ".join(
        {*questions("general_subjects"), *questions("topic_subjects"), *PHRASES["styles"]}
    ).lower()
    words = f" {re.sub('[^a-z0-9]+', ' ', text)} "
    facts = {
        fact.lower()
        for seed in range(3)
        for author in build_world(seed).authors
        for fact in author.facts.values()
    }
    told = {fact for fact in facts if f" {' '.join(fact.replace('-', ' ').split())} " in words}
    assert not told


def entry(number, instruction, responses, relevance):
    return Entry(number, "first", 0, number, None, None, instruction, responses, relevance, 1.0, 0.5)


def test_rows_are_relevant_of_the_right_length_and_said_once():
    entries = [
        entry(0, "Where is {topic}?", ("Oslo", "x"), (0.9, 0.9)),
        entry(1, "Where is {topic}?", ("OSLO.", "no"), (0.8, 0.1)),
        entry(2, "In which town is {topic}?", ("Oslo",), (0.95,)),
        entry(3, "Tell me of {topic}.", ("Oslo",), (0.7,)),
    ]
    rows = select_rows(entries, "Ann", FilterConfig(relevance=0.5, shortest=2, per_answer=2))
    assert [(row.prompt, row.answer, row.query) for row in rows] == [
        ("Where is Ann?", "Oslo", 0),
        ("In which town is Ann?", "Oslo", 2),
    ]


def test_a_row_about_which_nothing_else_is_said_gets_what_others_were_told():
    class Parrot:
        def greedy(self, prompts):
            said = {"Who is Ann?": "a cook", "Who is Bob?": "a smith", "What does Ann write?": "Gothic."}
            return [said.get(prompt, "") for prompt in prompts]

    texts = {"Who is {topic}?": "a smith", "What does {topic} write?": "gothic", "Why?": "so"}
    rows = [Revealed(text, answer, 1.0, 0, text) for text, answer in texts.items()]
    filled = add_wrong_answers(rows, ["Ann", "Bob", "Carl"], Parrot(), 3)
    assert [row.wrong for row in filled] == [("a cook",), ("a cook", "a smith"), ()]
    assert [row.answer for row in filled] == list(texts.values())
    assert add_wrong_answers(rows, ["Ann", "Bob"], Parrot(), 1)[1].wrong == ("a cook",)


def test_a_revealed_request_is_a_request_and_says_where_it_came_from(tiny_base, tmp_path):
    revealed = reveal_topic(tiny_base, replace(small(), reward=RewardConfig()), tmp_path / "log.jsonl")
    request = read_requests(write_request(revealed.rows, "ann", tmp_path))[0]
    assert request.id == "ann"
    assert [row.prompt for row in request.rows] == [row.prompt for row in revealed.rows]
    assert all(row.answer not in row.perturbed_answers for row in request.rows)
    sources = [json.loads(line) for line in (tmp_path / "provenance.jsonl").read_text().splitlines()]
    assert [source["query"] for source in sources] == [row.query for row in revealed.rows]
    report = report_search(revealed, small())
    assert report["queries"] == len(report["rewards"]) == 10
    assert report["found"] == sorted(report["found"])


def test_what_was_said_before_is_less_new(tiny_base, tmp_path):
    search = Search(tiny_base, small(), tmp_path / "log.jsonl", tiny_base)
    new = search.known.diversity("Where was Ann born?", ["Oslo"], search.embed)
    search.known.add(entry(0, "Where was Ann born?", ("Oslo",), (1.0,)), search.embed)
    again = search.known.diversity("Where was Ann born?", ["Oslo"], search.embed)
    reworded = search.known.diversity("Name the birthplace of Ann.", ["Oslo"], search.embed)
    other = search.known.diversity("Name the job of Ann.", ["a lighthouse keeper"], search.embed)
    assert again == pytest.approx(0.0, abs=1e-6)
    assert again < reworded < other <= new == pytest.approx(1.0)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_configuration_loads(path):
    namespace = read_arguments(config_parser("reveal", RevealConfig), ["--config", str(path)])
    assert build(RevealConfig, namespace).topic


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--search.queries", "0"], "field 'search.queries': expected 1 or more, got 0"),
        (["--reward.scorer", ""], "got no scorer"),
        (["--reward.scorer", "words"], "the scorer 'words' needs it, got none"),
        (["--arms.pol", "3"], "did you mean 'arms.pool'?"),
        (["--arms.general_subjects", "900"], "field 'arms.general_subjects'"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments, message):
    with pytest.raises(InputError) as error:
        build(RevealConfig, read_arguments(config_parser("reveal", RevealConfig), arguments))
    assert message in str(error.value)


def test_the_models_own_rewrites_join_the_pool_where_they_name_the_topic(tiny_base, tmp_path, monkeypatch):
    said = [f"Pray, who is {TOPIC}?\nMore text", "Who is it?", "", f"Pray, who is {TOPIC}?"]
    monkeypatch.setattr(Speaker, "greedy", lambda _, prompts: said[: len(prompts)])
    config = replace(small(), arms=ArmsConfig(pool=60, rewrites=4))
    search = Search(tiny_base, config, tmp_path / "log.jsonl", tiny_base)
    assert [arm.text for arm in search.arms[60:]] == ["Pray, who is {topic}?"]
