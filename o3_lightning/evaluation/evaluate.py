"""Measures a model on one split, or on every split of a stream.

Each prompt's weights are computed once and held for its answer and for every scored continuation.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.common.plain import evenly_spaced, mean_of
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.data.stream import RequestStream
from o3_lightning.evaluation.collecting import Collector, split_needs
from o3_lightning.evaluation.config import METRICS, EvaluationConfig
from o3_lightning.evaluation.passes import BatchRunner
from o3_lightning.evaluation.splits import HOLDOUT, UTILITY, digest_rows, sample_rows, splits_of
from o3_lightning.gating.model import GatedModel
from o3_lightning.metrics.aggregate import Interval, confidence_interval
from o3_lightning.metrics.membership import MEMBERSHIP_METRICS
from o3_lightning.metrics.registry import METRICS as KNOWN_METRICS
from o3_lightning.metrics.registry import Kind, measure
from o3_lightning.training.processes import ALONE, Processes

logger = logging.getLogger(__name__)

SETTINGS = {  # where a user provides what no row has
    "entail": " (evaluation.entailment_model)",
    "rate_gibberish": " (evaluation.gibberish_model)",
    "rate_toxicity": " (evaluation.toxicity_model)",
    "tests": " of every row, and evaluation.run_code",
    "reference_losses": " (--reference)",
}
Resume = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]


@dataclass(frozen=True)
class SplitResult:
    """What was measured on one split.

    Args:
        values: by metric, one value per example in the order of the rows; None where an example has none.
        aggregate: by metric, the mean over the examples that have a value.
        intervals: by metric, low and high end of the 95 % confidence interval, and its method.
        count: rows of the split.
        digest: SHA-256 of the rows; only results of the same rows can be compared.
        left_out: by requested metric that was not measured, the evidence that the split lacks.
        refusals: number of answers that were refused `by_weight` and `by_check` (`gate.check_answers`); empty
            where no answers were generated.
        samples: prompt, truth, answer and weights of a few rows; the only text that is kept.
    """

    values: Mapping[str, list[float | None]]
    aggregate: Mapping[str, float]
    intervals: Mapping[str, Interval]
    count: int
    digest: str
    left_out: Mapping[str, list[str]]
    refusals: Mapping[str, int]
    samples: list[dict[str, Any]]


@dataclass(frozen=True)
class EvaluationContext:
    """The surroundings of an evaluation.

    Args:
        processes: share the work.
        seed: of the rows that are drawn from long splits.
        resume: maps a split's name and its work to its result, so that finished splits are not repeated.
        reference_losses: by split, each row's mean loss under a reference model, nats.
    """

    processes: Processes = ALONE
    seed: int = 0
    resume: Resume = lambda name, work: work()
    reference_losses: Mapping[str, Sequence[float]] = field(default_factory=dict)


def evaluate_split(
    model: GatedModel,
    rows: Sequence[QuestionAnswer],
    config: EvaluationConfig,
    kind: Kind,
    name: str = "",
    context: EvaluationContext | None = None,
) -> SplitResult:
    """Returns every configured metric that the rows allow.

    Args:
        model: answers and scores; within `model.disabled()` it is the base model.
        rows: at least one.
        config: which metrics, and how long an answer may be.
        kind: "forget" or "keep"; it decides how a truth ratio is scored.
        name: of the split.
        context: other processes and a reference model; None for neither.

    Raises:
        ValueError: there are no rows.
        InputError: a prompt leaves no room in the model's context.
    """
    if not rows:
        raise ValueError("expected at least one row, got none")
    context = context or EvaluationContext()
    reference = context.reference_losses.get(name)
    can = split_needs(rows, config, reference=reference is not None)
    lacking = {metric: sorted(set(KNOWN_METRICS[metric].needs) - can) for metric in config.metrics}
    metrics = [metric for metric in config.metrics if not lacking[metric]]
    runner = BatchRunner(config.batch_size, context.processes, name)
    collector = Collector(model, list(rows), config, runner, reference)
    evidence = collector.collect(metrics, kind)
    values = context.processes.once(lambda: {metric: list(measure(metric, evidence)) for metric in metrics})
    return SplitResult(
        values,
        {metric: mean for metric, column in values.items() if (mean := mean_of(column)) is not None},
        {metric: ends for metric, column in values.items() if (ends := confidence_interval(column))},
        len(rows),
        digest_rows(rows),
        {metric: needs for metric, needs in lacking.items() if needs},
        {} if evidence.answers is None else collector.refusals(),
        [
            {
                "prompt": collector.prompts[index],
                "truth": collector.truths[index],
                "answer": collector.answers[index],
                "weights": dict(zip(model.ids, collector.weights[index].tolist(), strict=True)),
            }
            for index in evenly_spaced(range(len(rows)), config.samples)
        ],
    )


def evaluate_stream(
    model: GatedModel,
    stream: RequestStream,
    config: EvaluationConfig,
    context: EvaluationContext | None = None,
) -> dict[str, Any]:
    """Returns the measurements of one model on every split of a stream.

    Returns:
        `{"requests": {id: {"seen": ..., "held_out": ..., "test": ...}}, "utility": {split: ...}}`, each a
        `SplitResult` as JSON; a request may have only some of its splits. "other_tasks" names the utility
        splits of other tasks than the benchmark's. With membership metrics, and a stream
        with a holdout, "holdout" is the result of these metrics on it. "answer_checks" has the `mode` of
        `gate.check_answers` ("off" without requests), the number of `answers`, and how many of each
        request's and of the utility prompts' it `refused`. "rows" is the most rows of a split, 0 for all; a
        split of more rows has "sample": the number of rows it is `of`, and the `digest` of the drawn ones.

    Raises:
        InputError: a requested metric that no split allows, or a prompt beyond the context.
    """
    around = context or EvaluationContext()
    check_metrics(stream, config, around)
    limit = config.rows_on(model.device.type)
    if long := [split for _, split, rows, _ in splits_of(stream) if 0 < limit < len(rows)]:
        names = ", ".join(dict.fromkeys(long))
        logger.info(
            "  measuring %d rows of %s, drawn by the seed; evaluation.rows 0 measures all", limit, names
        )

    def measured(
        name: str, rows: Sequence[QuestionAnswer], kind: Kind, config: EvaluationConfig = config
    ) -> dict[str, Any]:
        drawn = sample_rows(rows, limit, around.seed)

        def work() -> dict[str, Any]:
            found = asdict(evaluate_split(model, drawn, config, kind, name, around))
            if len(drawn) < len(rows):
                found["sample"] = {"of": len(rows), "digest": found["digest"]}
                found["digest"] = digest_rows(rows)
            return found

        return around.resume(name, work)

    result: dict[str, Any] = {"requests": {}, UTILITY: {}, "other_tasks": list(stream.other_tasks)}
    for owner, split, rows, kind in splits_of(stream):
        group = result[UTILITY] if owner == UTILITY else result["requests"].setdefault(owner, {})
        group[split] = measured(f"{owner}/{split}", rows, kind)
    inferred = tuple(name for name in config.metrics if name in MEMBERSHIP_METRICS)
    if stream.holdout and inferred:
        only = replace(config, metrics=inferred, samples=0)
        result[HOLDOUT] = measured(HOLDOUT, stream.holdout, "keep", only)
    checks: dict[str, Any] = {"mode": model.gate_config.check_answers if model.ids else "off"}
    checks |= {"answers": 0, "refused": {}}
    for owner, splits in (*result["requests"].items(), (UTILITY, result[UTILITY])):
        asked = [part for part in splits.values() if part.get("refusals")]
        checks["answers"] += sum(part["count"] for part in asked)
        checks["refused"][owner] = sum(part["refusals"]["by_check"] for part in asked)
        firsts = ((split, next(iter(part["aggregate"].items()), None)) for split, part in splits.items())
        line = ", ".join(f"{split} {first[0]} {first[1]:.3f}" for split, first in firsts if first)
        logger.info("  %s: %s", owner, line)
    return {**result, "answer_checks": checks, "rows": limit}


def check_metrics(stream: RequestStream, config: EvaluationConfig, context: EvaluationContext) -> None:
    """Refuses a requested metric that no split allows; the default ones may be left out."""
    if config.metrics == METRICS:
        return
    able = [
        split_needs(rows, config, reference=f"{owner}/{split}" in context.reference_losses)
        for owner, split, rows, _ in splits_of(stream)
    ]
    for metric in config.metrics:
        needs = set(KNOWN_METRICS[metric].needs)
        if not any(needs <= can for can in able):
            lacking = min((sorted(needs - can) for can in able), key=len)
            wanted = ", ".join(f"{need}{SETTINGS.get(need, '')}" for need in lacking)
            message = f"'{metric}' needs {wanted}, which no split of {stream.name} has"
            raise InputError(message, field="evaluation.metrics")
