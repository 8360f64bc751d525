"""What the rounds of a release work with: the model, its original, and the text that has to stay."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.data.normalise import normalise
from o3_lightning.data.requests import QuestionAnswer, read_requests, read_rows
from o3_lightning.models.base import BaseModel, load_base
from o3_lightning.release.config import ReleaseConfig
from o3_lightning.release.measure import measure_author
from o3_lightning.release.neutral import Rows, Utility, neutral_rows
from o3_lightning.release.rounds import Rounds
from o3_lightning.release.topic_facts import Recall, TopicFacts, ask_further, summarise
from o3_lightning.reveal.reward import find_author
from o3_lightning.reveal.speaking import Speaker

__all__ = ["ReleaseContext", "open_context"]


@dataclass
class ReleaseContext:
    """What the rounds work with.

    Args:
        config: of the release.
        trainer: options of `lightning.Trainer`.
        original: the model as it was; says what is true of it.
        base: the model that is changed.
        neutral: neutral rows for training.
        utility: measures the budget, on other rows.
        rounds: what is on disk.
        facts: what was revealed or given so far, and further questions about it.
    """

    config: ReleaseConfig
    trainer: Mapping[str, Any]
    original: BaseModel
    base: BaseModel
    neutral: Sequence[QuestionAnswer]
    utility: Utility
    rounds: Rounds
    facts: TopicFacts

    @property
    def speaker(self) -> Speaker:
        """The changed model, asked."""
        return Speaker(self.base, self.config.sampling)

    @property
    def forgotten(self) -> frozenset[str]:
        """Normalised answers that neutral text may lose; none where the rows to keep were given."""
        return self.facts.answers if self.config.retain is None else frozenset()

    def kept(self) -> Sequence[QuestionAnswer]:
        """Neutral rows that say nothing of what is to be forgotten; all of them where each does."""
        forgotten = self.forgotten
        rows = [row for row in self.neutral if normalise(row.answer) not in forgotten]
        return rows or self.neutral

    def drop(self) -> float:
        """Utility that the changed model has lost, in nats a token."""
        return self.utility.drop(self.forgotten)

    def recall(self, rows: Sequence[QuestionAnswer]) -> list[Recall]:
        """How well the changed model remembers each row."""
        scores = self.speaker.token_scores([row.prompt for row in rows], [row.answer for row in rows])
        return [Recall.of(row) for row in scores]

    def still_known(self, rows: Sequence[QuestionAnswer]) -> list[QuestionAnswer]:
        """Those of some rows that the changed model still knows."""
        found = zip(rows, self.recall(rows), strict=True)
        return [row for row, recall in found if recall.is_known(self.config.stop)]

    def summary(self) -> dict[str, float]:
        """Mean probability, and share still known, of the rows that are learnt and of those that judge."""
        learnt, judging = self.facts.split()
        return summarise(self.recall([*learnt, *judging]), self.config.stop)

    def measured(self) -> dict[str, float]:
        """What the fictitious world says, if the configuration asks for it."""
        if self.config.measure != "fictitious":
            return {}
        return measure_author(self.speaker.greedy, self.config.topic, self.config.seed)


def open_context(config: ReleaseConfig, trainer: Mapping[str, Any], folder: Path) -> ReleaseContext:
    """Loads the model twice, once to change it and once to judge, and the text that has to stay.

    Raises:
        InputError: neither topic nor request, a topic that cannot be measured, or too few rows to keep.
    """
    if not config.topic.strip() and not config.requests:
        raise InputError("expected a topic, or requests; got neither", field="topic")
    if config.measure == "fictitious":
        find_author(config.topic, config.seed)  # refuses another topic before anything is asked
    given = read_requests(config.requests) if config.requests else []
    original, base = load_base(config.base, config.seed), load_base(config.base, config.seed)
    speaker = Speaker(original, config.sampling)
    if config.retain is None:
        others = tuple(name for name in config.reward.others if name != config.topic)
        kept, judged = shares(*neutral_rows(speaker, others, config.neutral, config.seed))
    else:
        given_rows = tuple(row for _, _, row in read_rows(config.retain))
        if len(given_rows) < 2:
            raise InputError("expected at least two rows to keep", path=config.retain)
        kept, judged = halves(given_rows, config.seed)
    further = ask_further(speaker, config.topic, config.arms, config.further, config.seed)
    facts = TopicFacts([row for request in given for row in request.rows], further)
    return ReleaseContext(config, trainer, original, base, kept, Utility(base, judged), Rounds(folder), facts)


def shares(named: Rows, general: Rows) -> tuple[Rows, Rows]:
    """Returns what is trained on and what the budget is judged by.

    All questions about names, the nearest to the topic, are trained on, and half of the general ones: without
    these nothing holds what the model knows about the world at large. The other half judges. Names there
    would use up the budget, for the topic cannot go without moving them a little.
    """
    return (*named, *general[::2]), general[1::2]


def halves(rows: Sequence[QuestionAnswer], seed: int) -> tuple[Rows, Rows]:
    """Returns two halves of the rows in an order drawn with the seed.

    A file often has kinds that take turns or follow each other: cut by place, one kind would be trained on
    and another judged by.
    """
    order = random.Random(seed).sample(list(rows), len(rows))  # noqa: S311
    return tuple(order[::2]), tuple(order[1::2])
