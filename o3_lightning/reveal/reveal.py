"""Reveal: searches for instructions that elicit what a model knows about a topic, under a query budget."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from o3_lightning.common.errors import InputError, O3Error
from o3_lightning.common.files import digest_json
from o3_lightning.common.plain import to_plain
from o3_lightning.common.seeds import stage_seed
from o3_lightning.detector.encoder import Encoder, load_encoder
from o3_lightning.models.base import BaseModel
from o3_lightning.reveal.arms import TOPIC, Arm, build_arms
from o3_lightning.reveal.config import RevealConfig
from o3_lightning.reveal.diversity import novelty, text_kernel, vendi
from o3_lightning.reveal.log import Entry, QueryLog
from o3_lightning.reveal.output import Revealed, add_wrong_answers, select_rows
from o3_lightning.reveal.reward import build_scorer, harmonic_mean
from o3_lightning.reveal.scorers import Scorer
from o3_lightning.reveal.search import Query, run_search, standardise
from o3_lightning.reveal.speaking import Speaker

logger = logging.getLogger(__name__)
LOG_EVERY = 20  # queries
REWRITE = "Say this in other words, and nothing else: {}"
SILENT_AFTER = 20  # queries without any answer after which the search stops


class NothingRevealedError(O3Error):
    """The model gave no answer, or none about the topic."""


@dataclass(frozen=True)
class Revelation:
    """The result of a search.

    Args:
        rows: the forget set, at least one row.
        entries: all queries.
    """

    rows: tuple[Revealed, ...]
    entries: tuple[Entry, ...]


def reveal_topic(
    base: BaseModel, config: RevealConfig, log_file: Path, judge: BaseModel | None = None
) -> Revelation:
    """Searches for instructions that elicit answers about a topic, and returns the answers.

    Args:
        base: the model, which is not changed.
        config: of the search; `config.base` is not loaded.
        log_file: the log, from which an interrupted search continues.
        judge: the model that scores relevance and gives wrong answers; None for the model itself. Release
            passes the original model, so that inventions of the changed model are not relevant.

    Raises:
        InputError: the topic is empty, a scorer is not fully configured, or the log is of another search.
        NothingRevealedError: the model gave no answer, or none that passes the filter. The log is kept.
    """
    if not config.topic.strip():
        raise InputError("expected what the model is to talk about, got nothing", field="topic")
    search = Search(base, config, log_file, judge or base)
    entries = search.run()
    rows = select_rows(entries, config.topic, config.filter)
    if not rows:
        best = max((value for entry in entries for value in entry.relevance), default=0.0)
        raise NothingRevealedError(
            f"nothing about '{config.topic}' in {len(entries)} queries: the highest relevance was "
            f"{best:.3f}, filter.relevance is {config.filter.relevance}; all answers are in {log_file}"
        )
    if config.reward.scorer == "contrast" and config.filter.wrong_answers:
        others = [name for name in config.reward.others if name != config.topic]
        rows = add_wrong_answers(rows, others, search.judge, config.filter.wrong_answers)
    return Revelation(tuple(rows), tuple(entries))


class Search:
    """A search with its pool, scorer and log; the arguments are those of `reveal_topic`."""

    def __init__(self, base: BaseModel, config: RevealConfig, log_file: Path, judge: BaseModel) -> None:
        self.config, self.speaker = config, Speaker(base, config.sampling)
        self.judge = Speaker(judge, config.sampling)
        self.scorer: Scorer = build_scorer(config.reward, config.topic, self.judge, config.seed)
        self.encoder: Encoder = load_encoder(config.reward.encoder)
        self.arms = build_arms(config.arms, config.seed, self.speaker.width)
        self.arms += rewritten(self.arms, config, self.judge)
        self.log = QueryLog(log_file, header(base, config))
        self.earlier = tuple(self.log.entries)
        self.known = Known(config)

    def run(self) -> list[Entry]:
        """Runs the search and returns all queries."""
        config = self.config
        logger.info("encoding %d instructions", len(self.arms))
        contexts = standardise(self.speaker.contexts(self.arms, config.topic))
        if self.earlier:
            logger.info("continuing after %d queries", len(self.earlier))
        run_search(contexts, self.ask, config.search, stage_seed(config.seed, "search", config.topic))
        return self.log.entries

    def ask(self, query: Query) -> float:
        """Sends one instruction, or reads its answers from the log, and returns the reward."""
        if query.number < len(self.earlier):
            entry = self.earlier[query.number]
            if entry.arm != query.arm:
                raise InputError(
                    f"query {query.number} is another instruction than this search chose: the log is from "
                    "another version or another machine; choose another --name",
                    path=self.log.path,
                )
        else:
            entry = self.answer(query)
            self.log.append(entry)
        self.known.add(entry, self.embed)
        self.check_silence(query.number)
        return entry.reward

    def answer(self, query: Query) -> Entry:
        """Sends one instruction to the model and computes the reward of its answers."""
        config, arm = self.config, self.arms[query.arm]
        seed = stage_seed(config.seed, "answers", str(query.number))
        responses = self.speaker.answers(arm, config.topic, seed)
        relevance = self.scorer.score(arm, config.topic, responses)
        diversity = self.known.diversity(arm.prompt(config.topic), responses, self.embed)
        mean = sum(relevance) / len(relevance) if relevance else 0.0
        reward = harmonic_mean(mean, diversity, config.reward) if responses else 0.0
        if (query.number + 1) % LOG_EVERY == 0:
            logger.info(
                "query %d: reward %.3f, %d relevant rows", query.number + 1, reward, len(self.known.rows)
            )
        return Entry(
            **vars(query),
            instruction=arm.text,
            responses=tuple(responses),
            relevance=tuple(relevance),
            diversity=diversity,
            reward=reward,
        )

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Returns sentence embeddings [N, D]."""
        return self.encoder.encode(texts)[:, -1]

    def check_silence(self, number: int) -> None:
        """Stops the search if the model never answers."""
        entries = self.log.entries[: number + 1]
        answered = any(entry.responses for entry in entries)
        if len(entries) in (SILENT_AFTER, self.config.search.queries) and not answered:
            raise NothingRevealedError(
                f"the model answered nothing to {len(entries)} instructions; check base.id and "
                f"base.template. The queries are in {self.log.path}"
            )


def rewritten(arms: Sequence[Arm], config: RevealConfig, speaker: Speaker) -> list[Arm]:
    """Returns the distinct paraphrases by the model of the first instructions that name the topic."""
    chosen = [arm for arm in arms if arm.names_topic][: config.arms.rewrites]
    asked = [REWRITE.format(arm.prompt(config.topic)) for arm in chosen]
    said = [text.splitlines()[0] for text in speaker.greedy(asked) if text]
    texts = dict.fromkeys(text.replace(config.topic, TOPIC) for text in said)
    known = {arm.text for arm in arms}
    return [Arm(text) for text in texts if TOPIC in text and text not in known]


class Known:
    """The relevant rows so far, with which the diversity of new answers is computed."""

    def __init__(self, config: RevealConfig) -> None:
        self.config = config
        self.rows: list[tuple[str, str]] = []
        self.prompts: list[Tensor] = []
        self.answers: list[Tensor] = []

    def add(self, entry: Entry, embed: Any) -> None:
        """Adds the relevant answers of a query."""
        prompt = Arm(entry.instruction).prompt(self.config.topic)
        new = [
            (prompt, answer)
            for answer, relevance in zip(entry.responses, entry.relevance, strict=True)
            if relevance >= self.config.filter.relevance and (prompt, answer) not in self.rows
        ]
        if new:
            self.rows += new
            self.prompts.append(embed([row[0] for row in new]))
            self.answers.append(embed([row[1] for row in new]))

    def diversity(self, prompt: str, responses: Sequence[str], embed: Any) -> float:
        """Returns the diversity of the answers of a query, in [0, 1]."""
        if not responses:
            return 0.0
        reward = self.config.reward
        answers, prompts = embed(responses), embed([prompt]).expand(len(responses), -1)
        if reward.diversity == "within":
            return vendi(text_kernel(answers, prompts, 0.0)) / max(1, self.config.sampling.samples)
        both = torch.cat([*self.answers, answers]), torch.cat([*self.prompts, prompts])
        return novelty(text_kernel(*both, reward.phrasing), len(self.rows))


def header(base: BaseModel, config: RevealConfig) -> dict[str, Any]:
    """Returns the header of the log, which identifies the search."""
    plain = replace(config, name="reveal", output="runs")
    return {"topic": config.topic, "base": base.digest, "configuration": digest_json(to_plain(plain))}
