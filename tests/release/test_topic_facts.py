"""What counts as known: by what a row says, not by how it ends; further questions join by their answers."""

import pytest
import torch

from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.metrics.token_scores import TokenScores
from o3_lightning.release.topic_facts import Recall, TopicFacts, ask_further, summarise
from o3_lightning.reveal.config import ArmsConfig


def scores(probabilities, argmax):
    log_probs = torch.tensor(probabilities).log()
    zeros = torch.zeros_like(log_probs)
    return TokenScores(log_probs, zeros, zeros, torch.tensor(argmax))


def test_a_fact_that_is_said_again_and_again_is_known():
    recall = Recall.of(scores([0.9, 0.4, 1e-9], [True, True, False]))
    assert recall.probability == pytest.approx(0.6)
    assert recall.said
    assert recall.is_known(1.0)


@pytest.mark.parametrize(("stop", "known"), [(0.19, True), (0.21, False)])
def test_a_likely_answer_is_known_though_another_is_said(stop, known):
    recall = Recall.of(scores([0.4, 0.1, 1.0], [False, True, True]))
    assert recall.probability == pytest.approx(0.2)
    assert recall.is_known(stop) is known


def test_a_summary_is_the_mean_and_the_share():
    found = [Recall(0.5, False), Recall(0.1, True), Recall(0.0, False), Recall(0.2, False)]
    assert summarise(found, 0.3) == {"probability": pytest.approx(0.2), "known": 0.5}


def test_further_questions_count_by_their_answers_and_are_halved():
    rows = [QuestionAnswer("Where?", "Oslo")]
    asked = [
        QuestionAnswer(f"Question {n}?", answer) for n, answer in enumerate(["oslo.", "Rome", "Oslo", "OSLO"])
    ]
    facts = TopicFacts(list(rows), [*asked, QuestionAnswer("Where?", "Oslo")])
    assert facts.split() == ([rows[0], asked[0], asked[2]], [asked[3]])
    facts.add([QuestionAnswer("Which?", "Rome"), rows[0]])
    assert [row.answer for row in facts.rows] == ["Oslo", "Rome"]
    assert facts.answers == {"oslo", "rome"}
    assert facts.split() == ([*facts.rows, asked[0], asked[2]], [asked[1], asked[3]])


def test_what_only_judges_stays_out_of_the_training_of_every_round():
    asked = [QuestionAnswer(f"Question {n}?", "red" if n % 3 else "blue") for n in range(20)]
    facts = TopicFacts([QuestionAnswer("Which?", "red")], asked)
    _, judged_before = facts.split()
    facts.add([QuestionAnswer("What?", "blue")])
    learnt, _ = facts.split()
    assert judged_before
    assert not {row.prompt for row in judged_before} & {row.prompt for row in learnt}


class Naming:
    """A speaker that answers each second question, and keeps what it was asked."""

    def greedy(self, prompts):
        self.prompts = prompts
        return ["" if place % 2 else "so" for place, _ in enumerate(prompts)]


def test_further_questions_name_the_topic_and_are_drawn_with_the_seed():
    speaker = Naming()
    config = ArmsConfig(pool=500, general_subjects=2, family="soft")
    rows = ask_further(speaker, "Ann Lee", config, 10, 3)
    assert len(speaker.prompts) == 10
    assert all("Ann Lee" in prompt for prompt in speaker.prompts)
    assert [row.prompt for row in rows] == speaker.prompts[::2]
    assert ask_further(speaker, "Ann Lee", config, 10, 3) == rows
    assert ask_further(speaker, "Ann Lee", config, 10, 4) != rows


def test_without_a_topic_or_a_count_nothing_is_asked(tmp_path):
    assert ask_further(Naming(), "", ArmsConfig(pool=5), 5, 0) == []
    assert ask_further(Naming(), "Ann", ArmsConfig(pool=5), 0, 0) == []
    with pytest.raises(InputError, match=r"arms\.phrases"):
        ask_further(Naming(), "Ann", ArmsConfig(phrases=str(tmp_path / "none.txt")), 5, 0)
