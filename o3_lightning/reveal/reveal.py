"""Reveal: instructions are chosen, asked and rewarded under a budget; what the model said is a request."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from o3_lightning.common.errors import InputError, O3Error
from o3_lightning.common.files import digest_json
from o3_lightning.common.plain import to_plain
from o3_lightning.common.seeds import stage_seed
from o3_lightning.data.requests import check_id
from o3_lightning.detector.encoder import Encoder, load_encoder
from o3_lightning.models.base import BaseConfig, BaseModel
from o3_lightning.reveal.arms import TOPIC, Arm, ArmsConfig, build_arms
from o3_lightning.reveal.diversity import novelty, text_kernel, vendi
from o3_lightning.reveal.log import Entry, QueryLog
from o3_lightning.reveal.output import FilterConfig, Revealed, add_wrong_answers, select_rows
from o3_lightning.reveal.reward import RewardConfig, build_scorer, harmonic_mean
from o3_lightning.reveal.scorers import Scorer
from o3_lightning.reveal.search import Query, run_search, standardise
from o3_lightning.reveal.search_config import SearchConfig
from o3_lightning.reveal.speaking import SamplingConfig, Speaker

__all__ = ["NothingRevealedError", "RevealConfig", "Revelation", "reveal_topic"]

logger = logging.getLogger(__name__)
LOG_EVERY = 20  # queries
SILENT_AFTER = 20  # queries without any answer until the search gives up


class NothingRevealedError(O3Error):
    """The model answered nothing, or nothing about the topic."""


@dataclass(frozen=True)
class RevealConfig:
    """Everything that decides what is revealed.

    Args:
        name: names the folder of the results; letters, digits, '.', '_' or '-'.
        output: folder that holds the results, relative to the working directory.
        seed: an integer >= 0; of pool, search and sampling, and of the fictitious world.
        topic: what the model is to talk about, such as a name.
        request_id: id of the request that is written; empty makes one of the topic.
        base: the language model.
        arms: the instructions.
        search: how they are chosen.
        reward: what makes one worth asking.
        sampling: how the model answers.
        filter: which answers become rows.
    """

    name: str = "reveal"
    output: str = "runs"
    seed: int = 0
    topic: str = ""
    request_id: str = ""
    base: BaseConfig = field(default_factory=BaseConfig)
    arms: ArmsConfig = field(default_factory=ArmsConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)

    def __post_init__(self) -> None:
        check_id(self.name)
        if self.seed < 0:
            raise InputError(f"expected an integer >= 0, got {self.seed}", field="seed")
        check_id(self.identifier)

    @property
    def identifier(self) -> str:
        """The request's id."""
        if self.request_id:
            return self.request_id
        letters = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in self.topic)
        return letters.strip("_").lower()[:64] or "topic"

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return Path(self.output) / self.name


@dataclass(frozen=True)
class Revelation:
    """What a search revealed.

    Args:
        rows: the forget set, at least one row.
        entries: every query.
    """

    rows: tuple[Revealed, ...]
    entries: tuple[Entry, ...]


def reveal_topic(
    base: BaseModel, config: RevealConfig, log_file: Path, judge: BaseModel | None = None
) -> Revelation:
    """Searches for instructions that make a model talk about a topic, and returns what it said.

    Args:
        base: the model, read only.
        config: topic, budget and the rest; its `base` is not loaded again.
        log_file: the log; a search that was stopped goes on where it ends.
        judge: the model whose likelihoods say what is relevant and what others are told; None takes the
            model itself. Release gives the model as it was, so that what a changed model makes up counts
            nothing.

    Raises:
        InputError: a scorer lacks what it needs, or the log belongs to another search.
        NothingRevealedError: the model answered nothing, or nothing that passes the filter. The log stays.
    """
    if not config.topic.strip():
        raise InputError("expected what the model is to talk about, got nothing", field="topic")
    search = Search(base, config, log_file, judge or base)
    entries = search.run()
    rows = select_rows(entries, config.topic, config.filter)
    if not rows:
        best = max((value for entry in entries for value in entry.relevance), default=0.0)
        raise NothingRevealedError(
            f"nothing about '{config.topic}' in {len(entries)} queries: the most relevant answer scored "
            f"{best:.3f}, the filter asks for {config.filter.relevance}; every answer is in {log_file}"
        )
    if config.reward.scorer == "contrast" and config.filter.wrong_answers:
        others = [name for name in config.reward.others if name != config.topic]
        rows = add_wrong_answers(rows, others, search.judge, config.filter.wrong_answers)
    return Revelation(tuple(rows), tuple(entries))


class Search:
    """One search: pool, contexts, scorer and log.

    Args:
        base: the model.
        config: topic, budget and the rest.
        log_file: the log.
        judge: the model that says what is relevant.
    """

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
        """Asks until the budget is spent, and returns every query."""
        config = self.config
        logger.info("reading %d instructions", len(self.arms))
        contexts = standardise(self.speaker.contexts(self.arms, config.topic))
        if self.earlier:
            logger.info("%d queries were asked before", len(self.earlier))
        run_search(contexts, self.ask, config.search, stage_seed(config.seed, "search", config.topic))
        return self.log.entries

    def ask(self, query: Query) -> float:
        """Asks one instruction, or reads its answers from the log, and returns the reward."""
        if query.number < len(self.earlier):
            entry = self.earlier[query.number]
            if entry.arm != query.choice.arm:
                raise InputError(
                    f"query {query.number} was another instruction than this search asks: the log is of "
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
        """Asks the model and rewards what it says."""
        config, choice = self.config, query.choice
        arm = self.arms[choice.arm]
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
            query.number,
            query.phase,
            query.round,
            choice.arm,
            arm.text,
            choice.prediction,
            choice.bonus,
            tuple(responses),
            tuple(relevance),
            diversity,
            reward,
        )

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Returns sentence embeddings [N, D]."""
        return self.encoder.encode(texts)[:, -1]

    def check_silence(self, number: int) -> None:
        """Gives up where the model never says anything."""
        entries = self.log.entries[: number + 1]
        if len(entries) in (SILENT_AFTER, self.config.search.queries) and not any(
            e.responses for e in entries
        ):
            raise NothingRevealedError(
                f"the model answered nothing to {len(entries)} instructions; check base.id and "
                f"base.template. "
                f"The queries are in {self.log.path}"
            )


def rewritten(arms: Sequence[Arm], config: RevealConfig, speaker: Speaker) -> list[Arm]:
    """Returns the model's own rewrites of the first instructions that name the topic, each once."""
    chosen = [arm for arm in arms if arm.names_topic][: config.arms.rewrites]
    asked = [config.arms.rewrite_prompt.replace("{instruction}", arm.prompt(config.topic)) for arm in chosen]
    said = [text.splitlines()[0] for text in speaker.greedy(asked) if text] if asked else []
    texts = dict.fromkeys(text.replace(config.topic, TOPIC) for text in said)
    known = {arm.text for arm in arms}
    return [Arm(text) for text in texts if TOPIC in text and text not in known]


class Known:
    """The relevant rows so far, against which an answer is new or not.

    Args:
        config: its filter says what is relevant, its reward what counts as new.
    """

    def __init__(self, config: RevealConfig) -> None:
        self.config = config
        self.rows: list[tuple[str, str]] = []
        self.prompts: Tensor | None = None
        self.answers: Tensor | None = None

    def add(self, entry: Entry, embed: Any) -> None:
        """Takes in the relevant answers of a query."""
        prompt = Arm(entry.instruction).prompt(self.config.topic)
        new = [
            (prompt, answer)
            for answer, relevance in zip(entry.responses, entry.relevance, strict=True)
            if relevance >= self.config.filter.relevance and (prompt, answer) not in self.rows
        ]
        if new:
            self.rows += new
            prompts, answers = embed([row[0] for row in new]), embed([row[1] for row in new])
            self.prompts = prompts if self.prompts is None else torch.cat([self.prompts, prompts])
            self.answers = answers if self.answers is None else torch.cat([self.answers, answers])

    def diversity(self, prompt: str, responses: Sequence[str], embed: Any) -> float:
        """Returns the diversity of a query's answers, in [0, 1]."""
        if not responses:
            return 0.0
        reward = self.config.reward
        answers, prompts = embed(responses), embed([prompt]).expand(len(responses), -1)
        if reward.diversity == "within":
            return vendi(text_kernel(answers, prompts, 0.0)) / max(1, self.config.sampling.samples)
        if self.answers is None or self.prompts is None:
            return novelty(text_kernel(answers, prompts, reward.phrasing), 0)
        kernel = text_kernel(
            torch.cat([self.answers, answers]), torch.cat([self.prompts, prompts]), reward.phrasing
        )
        return novelty(kernel, len(self.answers))


def header(base: BaseModel, config: RevealConfig) -> dict[str, Any]:
    """Returns what must be the same for a log to be continued."""
    plain = replace(config, name="reveal", output="runs")
    return {"topic": config.topic, "base": base.digest, "configuration": digest_json(to_plain(plain))}
