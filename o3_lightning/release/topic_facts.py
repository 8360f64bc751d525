"""The facts to forget: what the original model says about the topic, in training and evaluation phrasings.

A fact is forgotten once no question elicits it, including questions without training. Therefore the original
model is asked further questions, of which half are trained on and half only evaluate.
"""

import logging
import math
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Self

from o3_lightning.data.normalise import normalise
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.metrics.token_scores import TokenScores
from o3_lightning.reveal.arms import build_arms
from o3_lightning.reveal.config import ArmsConfig
from o3_lightning.reveal.speaking import Speaker

logger = logging.getLogger(__name__)
Rows = list[QuestionAnswer]


@dataclass(frozen=True)
class Recall:
    """How well a model remembers a row, without the end token of its answer.

    Args:
        probability: geometric mean of the probabilities of the answer tokens, in [0, 1].
        said: whether all of them are the most likely, so that greedy decoding gives the answer.
    """

    probability: float
    said: bool

    @classmethod
    def of(cls, scores: TokenScores) -> Self:
        """Returns the recall from the scores of an answer with its end token."""
        text = scores.without_last()
        return cls(math.exp(-text.loss), bool(text.is_argmax.all()))

    def is_known(self, stop: float) -> bool:
        """Whether the row is known: its answer is said or at least as likely as `stop`."""
        return self.said or self.probability >= stop


def summarise(found: Sequence[Recall], stop: float) -> dict[str, float]:
    """Returns the mean `probability` and the share still `known` of at least one row, in [0, 1]."""
    return {
        "probability": fmean(row.probability for row in found),
        "known": fmean(row.is_known(stop) for row in found),
    }


@dataclass
class TopicFacts:
    """The facts to forget.

    Args:
        rows: all rows revealed or given so far.
        asked: further questions with the greedy answers of the original model, on any subject.
    """

    rows: Rows
    asked: Sequence[QuestionAnswer] = ()

    def add(self, rows: Iterable[QuestionAnswer]) -> None:
        """Adds rows that are new."""
        known = {(row.prompt, row.answer) for row in self.rows}
        self.rows += [row for row in rows if (row.prompt, row.answer) not in known]

    @property
    def answers(self) -> frozenset[str]:
        """The normalised answers to forget, without empty ones."""
        return answers_of(self.rows)

    def split(self) -> tuple[Rows, Rows]:
        """Returns the rows for training and those that only evaluate.

        Further questions are used once their answer is among those of the rows, so that they only paraphrase
        what was revealed or given. Every second of all further questions is for training, so that none
        changes sides in a later round, unless its prompt is revealed.
        """
        return [*self.rows, *self._counting(self.asked[::2])], self._counting(self.asked[1::2])

    def _counting(self, asked: Sequence[QuestionAnswer]) -> Rows:
        """Returns the further questions with an answer, but not the prompt, of a row."""
        prompts = {row.prompt for row in self.rows}
        return [row for row in with_answers(asked, self.answers) if row.prompt not in prompts]


def answers_of(rows: Iterable[QuestionAnswer]) -> frozenset[str]:
    """Returns the normalised answers of some rows, without empty ones."""
    return frozenset(normalise(row.answer) for row in rows) - {""}


def with_answers(rows: Iterable[QuestionAnswer], answers: Collection[str]) -> Rows:
    """Returns the rows whose normalised answer is among the given ones."""
    return [row for row in rows if normalise(row.answer) in answers]


def ask_further(speaker: Speaker, topic: str, arms: ArmsConfig, count: int, seed: int) -> Rows:
    """Returns up to `count` questions that name the topic, with the non-empty greedy answers of the model.

    The questions are drawn from a pool of instructions, always of the family "text".

    Raises:
        InputError: the file of instructions cannot be read.
    """
    if not topic.strip() or not count:
        return []
    pool = [arm for arm in build_arms(replace(arms, family="text"), seed, width=0) if arm.names_topic]
    draw = random.Random(f"further-{seed}")  # noqa: S311
    prompts = [arm.prompt(topic) for arm in draw.sample(pool, min(count, len(pool)))]
    logger.info("asking %d further questions about the topic ...", len(prompts))
    return answered(speaker, prompts)


def answered(speaker: Speaker, prompts: Sequence[str]) -> Rows:
    """Returns the prompts that the model answers, with its greedy answers."""
    pairs = zip(prompts, speaker.greedy(prompts), strict=True)
    return [QuestionAnswer(prompt, answer) for prompt, answer in pairs if answer]
