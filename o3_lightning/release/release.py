"""Release: reveal, train an adapter on what was said, subtract it, measure, and again until it is quiet."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from o3_lightning.base import BaseModel, load_base
from o3_lightning.errors import InputError
from o3_lightning.files import write_json
from o3_lightning.release.adapters import forget_adapter, retain_adapter
from o3_lightning.release.config import ReleaseConfig
from o3_lightning.release.measure import measure_author
from o3_lightning.release.modes import Adapter, release_update
from o3_lightning.release.neutral import Utility, neutral_rows
from o3_lightning.release.rounds import Rounds
from o3_lightning.release.update import Update, applied, apply
from o3_lightning.requests import QuestionAnswer, read_requests, read_rows
from o3_lightning.reveal.output import as_request
from o3_lightning.reveal.reveal import NothingRevealedError, reveal_topic
from o3_lightning.reveal.speaking import Speaker

__all__ = ["release", "released_base"]

logger = logging.getLogger(__name__)
QUIET_ROUNDS = 2  # one after the other end a release; a single one may be luck


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

    def known_probability(self) -> float:
        """Mean probability of a token of the known rows' answers, in [0, 1]."""
        prompts, answers = [row.prompt for row in self.known], [row.answer for row in self.known]
        values = self.speaker.likelihoods(prompts, answers)
        return sum(values) / len(values)

    def measured(self) -> dict[str, float]:
        """What the fictitious world says, if the configuration asks for it."""
        if self.config.measure != "fictitious":
            return {}
        return measure_author(self.speaker.greedy, self.config.topic, self.config.seed)


def release(config: ReleaseConfig, trainer: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Runs the rounds that are not finished and writes `release.json`.

    Args:
        config: of the release.
        trainer: options of `lightning.Trainer`.
        folder: of the release; the caller has claimed it.

    Returns:
        The content of `release.json`: `stopped` (why), `rounds`, `base` and `seconds`.

    Raises:
        InputError: neither topic nor request, or bad input.
    """
    start = time.perf_counter()
    bench = open_bench(config, trainer, folder)
    before = bench.measured()
    resume(bench)
    reason = stop_reason(bench)
    while reason is None:
        run_round(bench, len(bench.rounds.records()) + 1)
        reason = stop_reason(bench)
    records = bench.rounds.records()
    result = {
        "stopped": reason,
        "base": {"id": config.base.id, "digest": bench.original.digest, "measured": before},
        "rounds": records,
        "seconds": sum(record["seconds"] for record in records),
        "seconds_of_this_start": time.perf_counter() - start,
    }
    write_json(folder / "release.json", result)
    return result


def open_bench(config: ReleaseConfig, trainer: Mapping[str, Any], folder: Path) -> Bench:
    """Loads the model twice, once to change it and once to judge, and the text that has to stay."""
    if not config.topic.strip() and not config.requests:
        raise InputError("expected a topic, or requests; got neither", field="topic")
    given = read_requests(config.requests) if config.requests else []
    original, base = load_base(config.base, config.seed), load_base(config.base, config.seed)
    if config.retain is None:
        others = tuple(name for name in config.reward.others if name != config.topic)
        speaker = Speaker(original, config.sampling)
        neutral: Sequence[QuestionAnswer] = neutral_rows(speaker, others, config.neutral, config.seed)
    else:
        neutral = tuple(row for _, _, row in read_rows(config.retain))
        if len(neutral) < 2:
            raise InputError("expected at least two rows to keep", path=config.retain)
    utility = Utility(base, tuple(neutral[1::2]))
    known = [row for request in given for row in request.rows]
    return Bench(config, trainer, original, base, neutral[::2], utility, Rounds(folder), known)


def resume(bench: Bench) -> None:
    """Brings model and known rows to where the finished rounds left them."""
    for number, update in bench.rounds.active():
        logger.info("round %d: done before", number)
        apply(bench.base.model, update)
    for record in bench.rounds.records():
        remember(bench, bench.rounds.folder(record["number"]))


def remember(bench: Bench, folder: Path) -> None:
    """Adds the rows of a round's request to the known ones."""
    path = folder / "request.jsonl"
    if path.is_file():
        known = {(row.prompt, row.answer) for row in bench.known}
        rows = [row for request in read_requests(path) for row in request.rows]
        bench.known += [row for row in rows if (row.prompt, row.answer) not in known]


def stop_reason(bench: Bench) -> str | None:
    """Returns why the release is over, or None."""
    records = bench.rounds.records()
    quiet = [record["quiet"] for record in records[-QUIET_ROUNDS:]]
    if len(quiet) == QUIET_ROUNDS and all(quiet):
        return f"{QUIET_ROUNDS} rounds were quiet"
    if records and not records[-1]["quiet"] and records[-1]["lambda"] is None:
        return "every step would cost more utility than the budget allows"
    if len(records) >= bench.config.rounds:
        return "all rounds were done"
    return None


def run_round(bench: Bench, number: int) -> None:
    """Reveals, and where that is not quiet trains and subtracts; ends with the round on disk."""
    from o3_lightning.reveal.output import write_request

    start, config, folder = time.perf_counter(), bench.config, bench.rounds.folder(number)
    logger.info("round %d ...", number)
    queries = 0
    if not config.requests:
        try:
            revealed = reveal_topic(
                bench.base, config.revealing(), folder / "queries.jsonl", judge=bench.original
            )
            write_request(revealed.rows, as_request(revealed.rows, "revealed").id, folder)
            queries = len(revealed.entries)
        except NothingRevealedError:
            if not bench.known:
                raise
            queries = config.search.queries
        remember(bench, folder)
    before = bench.known_probability()
    record: dict[str, Any] = {
        "queries": queries,
        "known_rows": len(bench.known),
        "probability_before": before,
        "quiet": before < config.stop,
        "lambda": None,
        "trials": [],
    }
    update = None if record["quiet"] else subtract(bench, folder, record)
    if update is not None:
        apply(bench.base.model, update)
    record |= {
        "probability_after": bench.known_probability(),
        "drop": bench.utility.drop(),
        "measured": bench.measured(),
        "seconds": time.perf_counter() - start,
    }
    bench.rounds.finish(number, record, update)
    logger.info(
        "round %d: probability of what is known %.3f -> %.3f, utility drop %.4f nats",
        number,
        before,
        record["probability_after"],
        record["drop"],
    )


def subtract(bench: Bench, folder: Path, record: dict[str, Any]) -> Update | None:
    """Trains the round's adapters; returns the best update within the budget, or None; notes the trials."""
    config, retain = bench.config, None
    if config.mode != "naive" or config.retain_lambda:
        retain = retain_adapter(bench.base, bench.kept, config, folder, bench.trainer)
    forget = forget_adapter(bench.base, bench.known, bench.kept, retain, config, folder, bench.trainer)
    trials = [try_lambda(bench, forget, retain, value) for value in sorted(config.lambdas)]
    record["trials"] = trials
    within = [trial for trial in trials if trial["drop"] <= config.budget]
    if not within:
        return None
    best = min(within, key=lambda trial: (trial["probability"], trial["lambda"]))
    record["lambda"] = best["lambda"]
    return release_update(forget, retain, config.mode, best["lambda"], config.retain_lambda)


def try_lambda(bench: Bench, forget: Adapter, retain: Adapter | None, value: float) -> dict[str, float]:
    """Returns probability of the known rows and drop of utility with one factor; the model stays as it is."""
    update = release_update(forget, retain, bench.config.mode, value, bench.config.retain_lambda)
    with applied(bench.base.model, update):
        return {"lambda": value, "probability": bench.known_probability(), "drop": bench.utility.drop()}


def released_base(config: ReleaseConfig, folder: Path) -> BaseModel:
    """Returns the base model with every active round of a release.

    Raises:
        StoreError: a round is damaged.
    """
    base = load_base(config.base, config.seed)
    for _, update in Rounds(folder).active():
        apply(base.model, update)
    return base
