"""What a release watches: what the original says about the topic, in words that adapters learn and others.

A fact is forgotten when no question brings it out any more, not only those that an adapter was trained on. So
the original is asked further questions; half of them join the training, and the other half only judge.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from o3_lightning.data.normalise import normalise
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.metrics.token_scores import TokenScores
from o3_lightning.reveal.arms import ArmsConfig, build_arms
from o3_lightning.reveal.speaking import Speaker

__all__ = ["Recall", "TopicFacts", "answers_of", "ask_further", "summarise", "with_answers"]

logger = logging.getLogger(__name__)
Rows = list[QuestionAnswer]


@dataclass(frozen=True)
class Recall:
    """How well a model still remembers one row. That an answer ends is left out: it is no knowledge.

    Args:
        probability: geometric mean of the probabilities of the answer's tokens, in [0, 1].
        said: whether each of them is the likeliest, so that greedy decoding says the answer.
    """

    probability: float
    said: bool

    @classmethod
    def of(cls, scores: TokenScores) -> Recall:
        """Reads the scores of an answer that was encoded with its end."""
        text = scores.without_last()
        return cls(math.exp(-text.loss), bool(text.is_argmax.all()))

    def is_known(self, stop: float) -> bool:
        """Whether the row counts as known: it is said, or at least as likely as `stop`."""
        return self.said or self.probability >= stop


def summarise(found: Sequence[Recall], stop: float) -> dict[str, float]:
    """Returns mean `probability` and share still `known` of some rows, each in [0, 1]; at least one row."""
    return {
        "probability": fmean(row.probability for row in found),
        "known": fmean(row.is_known(stop) for row in found),
    }


@dataclass
class TopicFacts:
    """What the original model says about the topic.

    Args:
        rows: every row revealed or given so far.
        asked: further questions with the original's likeliest answers, whatever they are about.
    """

    rows: Rows
    asked: Sequence[QuestionAnswer] = ()

    def add(self, rows: Iterable[QuestionAnswer]) -> None:
        """Takes in the rows that are new."""
        known = {(row.prompt, row.answer) for row in self.rows}
        self.rows += [row for row in rows if (row.prompt, row.answer) not in known]

    @property
    def answers(self) -> frozenset[str]:
        """What is to be forgotten: the rows' answers, normalised, those without a word left out."""
        return answers_of(self.rows)

    def split(self) -> tuple[Rows, Rows]:
        """Returns the rows that adapters learn, and those that only judge.

        A further question counts once its answer is among those of the rows: so what is known of the topic
        is what was revealed or given, and the further questions merely say it in other words. Every second
        one that was asked is trained on, whichever of them count: none changes sides in a later round,
        unless its very prompt is revealed.
        """
        return [*self.rows, *self._counting(self.asked[::2])], self._counting(self.asked[1::2])

    def _counting(self, asked: Sequence[QuestionAnswer]) -> Rows:
        """Returns the further questions that are about what the rows say, in words that no row has."""
        prompts = {row.prompt for row in self.rows}
        return [row for row in with_answers(asked, self.answers) if row.prompt not in prompts]


def answers_of(rows: Iterable[QuestionAnswer]) -> frozenset[str]:
    """Returns the normalised answers of some rows, those without a word left out."""
    return frozenset(normalise(row.answer) for row in rows) - {""}


def with_answers(rows: Iterable[QuestionAnswer], answers: Collection[str]) -> Rows:
    """Returns the rows whose normalised answer is one of some."""
    return [row for row in rows if normalise(row.answer) in answers]


def ask_further(speaker: Speaker, topic: str, arms: ArmsConfig, count: int, seed: int) -> Rows:
    """Returns questions that name the topic, with the model's likeliest answers; the empty ones left out.

    Args:
        speaker: the model before any release.
        topic: stands in for "{topic}".
        arms: the pool of instructions; always text, for soft tokens cannot be learnt by.
        count: questions at most.
        seed: draws them, and the pool.

    Raises:
        InputError: the pool's file cannot be read.
    """
    if not topic.strip() or not count:
        return []
    pool = [arm for arm in build_arms(replace(arms, family="text"), seed, width=0) if arm.names_topic]
    draw = random.Random(f"further-{seed}")  # noqa: S311
    prompts = [arm.prompt(topic) for arm in draw.sample(pool, min(count, len(pool)))]
    logger.info("asking %d further questions about the topic ...", len(prompts))
    answers = speaker.greedy(prompts)
    return [QuestionAnswer(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True) if answer]
