"""The state that the rounds of a release share: the model, its original, and the retained text."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.data.fictitious import build_world, rows_of
from o3_lightning.data.normalise import normalise
from o3_lightning.data.requests import QuestionAnswer, read_requests, read_rows
from o3_lightning.data.words import general_knowledge
from o3_lightning.metrics.text import accuracy
from o3_lightning.models.base import BaseModel, load_base
from o3_lightning.release.config import ReleaseConfig
from o3_lightning.release.neutral import Rows, Utility, neutral_rows
from o3_lightning.release.rounds import Rounds
from o3_lightning.release.topic_facts import Recall, TopicFacts, ask_further, summarise
from o3_lightning.reveal.reward import find_author
from o3_lightning.reveal.speaking import Speaker


@dataclass
class ReleaseContext:
    """The state that the rounds share.

    `original` is the unchanged model and `base` the one that is changed; `neutral` rows are for training, and
    `utility` measures the budget on others. `facts` are those to forget.
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
        """Queries the changed model."""
        return Speaker(self.base, self.config.sampling)

    @property
    def forgotten(self) -> frozenset[str]:
        """Normalised answers that neutral text may lose; none if the retained rows were given."""
        return self.facts.answers if self.config.retain is None else frozenset()

    def kept(self) -> Sequence[QuestionAnswer]:
        """Returns the neutral rows without facts to forget, or all rows if there are none without."""
        forgotten = self.forgotten
        rows = [row for row in self.neutral if normalise(row.answer) not in forgotten]
        return rows or self.neutral

    def drop(self) -> float:
        """Returns the loss of utility of the changed model, in nats per token."""
        return self.utility.drop(self.forgotten)

    def recall(self, rows: Sequence[QuestionAnswer]) -> list[Recall]:
        """Returns how well the changed model remembers each row."""
        scores = self.speaker.token_scores([row.prompt for row in rows], [row.answer for row in rows])
        return [Recall.of(row) for row in scores]

    def still_known(self, rows: Sequence[QuestionAnswer]) -> list[QuestionAnswer]:
        """Returns the rows that the changed model still knows."""
        found = zip(rows, self.recall(rows), strict=True)
        return [row for row, recall in found if recall.is_known(self.config.stop)]

    def summary(self) -> dict[str, float]:
        """Returns the mean probability and the known share of the rows of training and evaluation."""
        learnt, judging = self.facts.split()
        return summarise(self.recall([*learnt, *judging]), self.config.stop)

    def measured(self) -> dict[str, float]:
        """Returns the accuracy on the fictitious world, if it is measured."""
        if self.config.measure != "fictitious":
            return {}
        return measure_author(self.speaker.greedy, self.config.topic, self.config.seed)


def open_context(config: ReleaseConfig, trainer: Mapping[str, Any], folder: Path) -> ReleaseContext:
    """Loads the model and an unchanged copy of it, and the text to retain.

    Raises:
        InputError: neither topic nor request, a topic that cannot be measured, or too few rows to retain.
    """
    if not config.topic.strip() and not config.requests:
        raise InputError("expected a topic, or requests; got neither", field="topic")
    if config.measure == "fictitious":
        find_author(config.topic, config.seed)  # refuses other topics before any work
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
    """Returns the rows for training and those that measure the budget.

    Training uses all questions about names, which are closest to the topic, and half of the general ones,
    which protect general knowledge. The other half measures the budget; names would exhaust it, because the
    topic cannot be forgotten without a small effect on them.
    """
    return (*named, *general[::2]), general[1::2]


def halves(rows: Sequence[QuestionAnswer], seed: int) -> tuple[Rows, Rows]:
    """Returns two random halves of the rows, so that kinds of rows that alternate or are sorted are mixed."""
    order = random.Random(seed).sample(list(rows), len(rows))  # noqa: S311
    return tuple(order[::2]), tuple(order[1::2])


def measure_author(answer: Callable[[Sequence[str]], list[str]], topic: str, seed: int) -> dict[str, float]:
    """Returns the accuracy of the greedy answers about one author and about everything else, for the report.

    Returns:
        `seen` and `held_out` (the author, by phrasing), `others` (held-out phrasings of the other authors)
        and `general` (common facts), each in [0, 1].

    Raises:
        InputError: the topic is not an author of the fictitious world of the seed.
    """
    author, world = find_author(topic, seed), build_world(seed)
    rows = rows_of(world, [author])
    others = rows_of(world, (other for other in world.authors if other.name != topic))
    splits: dict[str, Sequence[QuestionAnswer]] = {"seen": rows, "held_out": held_out(rows)}
    splits |= {"others": held_out(others), "general": general_knowledge()}
    found = {}
    for name, split in splits.items():
        values = accuracy(answer([row.prompt for row in split]), [row.answer for row in split])
        found[name] = sum(values) / len(values)
    return found


def held_out(rows: Sequence[QuestionAnswer]) -> list[QuestionAnswer]:
    """Returns the held-out prompts with their answers."""
    return [QuestionAnswer(prompt, row.answer) for row in rows for prompt in row.held_out_prompts]
