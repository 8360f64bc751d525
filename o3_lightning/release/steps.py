"""The steps of a round: each trains an adapter on the rows that are still known and subtracts it."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.models.lora import LoraFactors
from o3_lightning.release.adapters import forget_adapter, retain_adapter
from o3_lightning.release.context import ReleaseContext
from o3_lightning.release.topic_facts import answers_of, summarise, with_answers
from o3_lightning.release.update import applied, release_update


def take_steps(
    context: ReleaseContext, folder: Path, number: int
) -> tuple[LoraFactors | None, list[dict[str, Any]]]:
    """Returns the update of a round (from 1) and a record of each step; the model is not changed.

    Each step trains on the rows that are still known after the previous steps, because forgotten rows would
    dominate the gradient and be learnt again. If only evaluation rows are still known, it trains on the rows
    with the same answers. The budget is distributed evenly over all steps, and unused budget is passed on:
    a larger factor than necessary costs more utility than another adapter trained on the remaining rows.
    """
    config, update, records = context.config, None, []
    retain = None
    if config.mode != "naive" or config.retain_lambda:
        retain = retain_adapter(context, folder)
    for step in range(1, config.steps + 1):
        allowed = config.budget * ((number - 1) * config.steps + step) / (config.rounds * config.steps)
        with applied(context.base.model, update) if update else nullcontext():
            learnt, judging = context.facts.split()
            rows = context.still_known(learnt)
            rows = rows or with_answers(learnt, answers_of(context.still_known(judging)))
            if not rows:
                break
            forget = forget_adapter(context, rows, retain, folder / f"step_{step:02}")
            trials = walk_grid(context, [*rows, *judging], forget, retain, allowed)
        within = [trial for trial in trials if trial["drop"] <= allowed]
        best = min(within, key=lambda trial: (trial["known"], trial["probability"]), default=None)
        found = None if best is None else best["lambda"]
        records.append({"rows": len(rows), "judging": len(judging), "lambda": found, "trials": trials})
        if found is not None:
            new = release_update(forget, retain, config.mode, found, config.retain_lambda)
            update = LoraFactors.stacked([update, new]) if update else new
    return update, records


def walk_grid(
    context: ReleaseContext,
    rows: Sequence[QuestionAnswer],
    forget: LoraFactors,
    retain: LoraFactors | None,
    allowed: float,
) -> list[dict[str, float]]:
    """Returns the effect of each factor in increasing order.

    The last factor is the first that exceeds the budget or leaves no known row; larger ones would use budget
    that later steps may need.
    """
    trials: list[dict[str, float]] = []
    for value in sorted(context.config.lambdas):
        trials.append(try_lambda(context, rows, forget, retain, value))
        if trials[-1]["drop"] > allowed or not trials[-1]["known"]:
            break
    return trials


def try_lambda(
    context: ReleaseContext,
    rows: Sequence[QuestionAnswer],
    forget: LoraFactors,
    retain: LoraFactors | None,
    value: float,
) -> dict[str, float]:
    """Returns the effect of a factor; the model is not changed.

    Returns:
        `lambda`, the factor; mean `probability` of the rows and the share still `known`; `drop` of utility.
    """
    update = release_update(forget, retain, context.config.mode, value, context.config.retain_lambda)
    with applied(context.base.model, update):
        found = summarise(context.recall(rows), context.config.stop)
        return {"lambda": value, **found, "drop": context.drop()}
