"""What the rounds of a release work with: the model, its original, and the text that has to stay."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from o3_lightning.base import BaseModel, load_base
from o3_lightning.errors import InputError
from o3_lightning.release.config import ReleaseConfig
from o3_lightning.release.measure import measure_author
from o3_lightning.release.neutral import Rows, Utility, neutral_rows
from o3_lightning.release.rounds import Rounds
from o3_lightning.requests import QuestionAnswer, read_requests, read_rows
from o3_lightning.reveal.speaking import Speaker

__all__ = ["Bench", "open_bench"]


@dataclass
class Bench:
    """What the rounds work with.

    Args:
        config: of the release.
        trainer: options of `lightning.Trainer`.
        original: the model as it was; says what is true of it.
        base: the model that is changed.
        kept: neutral rows for training.
        utility: measures the budget, on other rows.
        rounds: what is on disk.
        known: every row revealed or given so far.
    """

    config: ReleaseConfig
    trainer: Mapping[str, Any]
    original: BaseModel
    base: BaseModel
    kept: Sequence[QuestionAnswer]
    utility: Utility
    rounds: Rounds
    known: list[QuestionAnswer]

    @property
    def speaker(self) -> Speaker:
        """The changed model, asked."""
        return Speaker(self.base, self.config.sampling)

    def probabilities(self, rows: Sequence[QuestionAnswer]) -> list[float]:
        """Mean probability of a token of each row's answer, in [0, 1]."""
        return self.speaker.likelihoods([row.prompt for row in rows], [row.answer for row in rows])

    def known_probability(self) -> float:
        """Mean probability of the known rows' answers, in [0, 1]."""
        return fmean(self.probabilities(self.known))

    def still_known(self) -> list[QuestionAnswer]:
        """Rows revealed or given so far whose answers the changed model still finds likely."""
        found = zip(self.known, self.probabilities(self.known), strict=True)
        return [row for row, probability in found if probability >= self.config.stop]

    def measured(self) -> dict[str, float]:
        """What the fictitious world says, if the configuration asks for it."""
        if self.config.measure != "fictitious":
            return {}
        return measure_author(self.speaker.greedy, self.config.topic, self.config.seed)


def open_bench(config: ReleaseConfig, trainer: Mapping[str, Any], folder: Path) -> Bench:
    """Loads the model twice, once to change it and once to judge, and the text that has to stay."""
    if not config.topic.strip() and not config.requests:
        raise InputError("expected a topic, or requests; got neither", field="topic")
    given = read_requests(config.requests) if config.requests else []
    original, base = load_base(config.base, config.seed), load_base(config.base, config.seed)
    if config.retain is None:
        others = tuple(name for name in config.reward.others if name != config.topic)
        speaker = Speaker(original, config.sampling)
        kept, judged = shares(*neutral_rows(speaker, others, config.neutral, config.seed))
    else:
        given_rows = tuple(row for _, _, row in read_rows(config.retain))
        if len(given_rows) < 2:
            raise InputError("expected at least two rows to keep", path=config.retain)
        kept, judged = halves(given_rows, config.seed)
    known = [row for request in given for row in request.rows]
    return Bench(config, trainer, original, base, kept, Utility(base, judged), Rounds(folder), known)


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
