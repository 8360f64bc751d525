"""The rounds of a release: reveal, train adapters on the answers, subtract them, measure."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from o3_lightning.common.files import write_json
from o3_lightning.data.requests import read_requests
from o3_lightning.models.base import BaseModel, load_base
from o3_lightning.release.config import ReleaseConfig
from o3_lightning.release.context import ReleaseContext, open_context
from o3_lightning.release.rounds import Rounds
from o3_lightning.release.steps import take_steps
from o3_lightning.release.update import apply
from o3_lightning.reveal.output import write_request
from o3_lightning.reveal.reveal import NothingRevealedError, reveal_topic

logger = logging.getLogger(__name__)
QUIET_ROUNDS = 2  # consecutive quiet rounds that end a release; a single one may be chance


def release(config: ReleaseConfig, trainer: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Runs the remaining rounds in a folder claimed by the caller, and writes `release.json`.

    Returns:
        The content of `release.json`: `stopped` (the reason), `rounds`, `base` and `seconds`.

    Raises:
        InputError: neither topic nor request, or invalid input.
    """
    start = time.perf_counter()
    context = open_context(config, trainer, folder)
    before = context.measured()
    resume(context)
    reason = stop_reason(context)
    while reason is None:
        run_round(context, len(context.rounds.records()) + 1)
        reason = stop_reason(context)
    records = context.rounds.records()
    result = {
        "stopped": reason,
        "base": {"id": config.base.id, "digest": context.original.digest, "measured": before},
        "rounds": records,
        "seconds": sum(record["seconds"] for record in records),
        "seconds_of_this_start": time.perf_counter() - start,
    }
    write_json(folder / "release.json", result, private=True)
    return result


def resume(context: ReleaseContext) -> None:
    """Restores the model and the known rows after the finished rounds."""
    for number, update in context.rounds.active():
        logger.info("round %d: already finished", number)
        apply(context.base.model, update)
    for record in context.rounds.records():
        remember(context, context.rounds.folder(record["number"]))


def remember(context: ReleaseContext, folder: Path) -> None:
    """Adds the rows of the request of a round to the known ones."""
    path = folder / "request.jsonl"
    if path.is_file():
        context.facts.add(row for request in read_requests(path) for row in request.rows)


def stop_reason(context: ReleaseContext) -> str | None:
    """Returns the reason to stop, or None."""
    records = context.rounds.records()
    quiet = [record["quiet"] for record in records[-QUIET_ROUNDS:]]
    if len(quiet) == QUIET_ROUNDS and all(quiet):
        return f"{QUIET_ROUNDS} rounds were quiet"
    if records and not records[-1]["quiet"] and records[-1]["update"] is None:
        return "no step fits into its share of the budget"
    if len(records) >= context.config.rounds:
        return "all rounds were done"
    return None


def reveal_more(context: ReleaseContext, folder: Path) -> int:
    """Adds what the model reveals to the facts to forget; returns the number of queries."""
    config = context.config
    try:
        revealed = reveal_topic(
            context.base, config.revealing(), folder / "queries.jsonl", judge=context.original
        )
        write_request(revealed.rows, "revealed", folder)
        queries = len(revealed.entries)
    except NothingRevealedError:
        if not context.facts.rows:
            raise
        queries = config.search.queries
    remember(context, folder)
    return queries


def run_round(context: ReleaseContext, number: int) -> None:
    """Reveals, trains and subtracts, unless the round is quiet, and stores the round."""
    start, config, folder = time.perf_counter(), context.config, context.rounds.folder(number)
    logger.info("round %d ...", number)
    queries = 0 if config.requests else reveal_more(context, folder)
    before = context.summary()
    record: dict[str, Any] = {
        "queries": queries,
        "known_rows": len(context.facts.rows),
        "probability_before": before["probability"],
        "known_before": before["known"],
        "quiet": not before["known"],
        "steps": [],
    }
    update = None
    if not record["quiet"]:
        update, record["steps"] = take_steps(context, folder, number)
    if update is not None:
        apply(context.base.model, update)
    after = context.summary()
    record |= {
        "probability_after": after["probability"],
        "known_after": after["known"],
        "drop": context.drop(),
        "measured": context.measured(),
        "seconds": time.perf_counter() - start,
    }
    context.rounds.finish(number, record, update)
    logger.info(
        "round %d: %.3f of the rows known -> %.3f, utility drop %.4f nats",
        number,
        before["known"],
        after["known"],
        record["drop"],
    )


def released_base(config: ReleaseConfig, folder: Path) -> BaseModel:
    """Returns the base model with all active rounds of a release applied.

    Raises:
        StoreError: a round is damaged.
    """
    base = load_base(config.base, config.seed)
    for _, update in Rounds(folder).active():
        apply(base.model, update)
    return base
