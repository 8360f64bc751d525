"""Measures a model on one split, or on every split of a stream.

Each prompt's weights are computed once and held for its answer and for every scored continuation.
"""

from __future__ import annotations

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
from o3_lightning.evaluation.splits import HOLDOUT, UTILITY, digest_rows, splits_of
from o3_lightning.gating.model import GatedModel
from o3_lightning.metrics.aggregate import confidence_interval
from o3_lightning.metrics.membership import MEMBERSHIP_METRICS
from o3_lightning.metrics.registry import METRICS as KNOWN_METRICS
from o3_lightning.metrics.registry import Evidence, Kind, measure
from o3_lightning.training.processes import ALONE, Processes

__all__ = [
    "EvaluationContext",
    "SplitResult",
    "evaluate_split",
    "evaluate_stream",
]

logger = logging.getLogger(__name__)

SETTINGS = {  # where a user gives what rows alone never have
    "entail": " (evaluation.entailment_model)",
    "rate_gibberish": " (evaluation.gibberish_model)",
    "reference_losses": " (--reference)",
}
RESAMPLING_SEED = 0  # intervals of equal values are equal, whatever the run's seed
Resume = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]


@dataclass(frozen=True)
class SplitResult:
    """What was measured on one split.

    Args:
        values: by metric, one value per example in the order of the rows; None where an example has none.
        aggregate: by metric, the mean over the examples that have a value.
        intervals: by metric, low and high end of the 95 % confidence interval, and how it was found.
        count: rows of the split.
        digest: SHA-256 of the rows; results of other rows cannot be compared with these.
        left_out: by metric that was asked for, what the split lacks for it.
        samples: prompt, truth, answer and weights of the first few rows; the only text that is kept.
    """

    values: Mapping[str, list[float | None]]
    aggregate: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float, str]] = field(default_factory=dict)
    count: int = 0
    digest: str = ""
    left_out: Mapping[str, list[str]] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class EvaluationContext:
    """What an evaluation has beside model, rows and configuration.

    Args:
        processes: who shares the work.
        resume: from a split's name and its work to its result, so that finished splits are not done again.
        reference_losses: by split, each row's mean loss under a reference model, nats.
    """

    processes: Processes = ALONE
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
    """Returns every configured metric on some rows.

    Args:
        model: answers and scores; within `model.disabled()` it is the base model.
        rows: at least one.
        config: which metrics, and how long an answer may be.
        kind: "forget" for splits that are to be forgotten, "keep" for utility; it decides how a truth
            ratio reads.
        name: of the split.
        context: other processes and a reference model; None has neither.

    Returns:
        Aggregates, intervals and values per example. A metric that the rows do not allow is left out.

    Raises:
        ValueError: there are no rows.
        InputError: a prompt leaves no room in the model's context.
    """
    if not rows:
        raise ValueError("expected at least one row, got none")
    context = context or EvaluationContext()
    reference = context.reference_losses.get(name)
    can = split_needs(rows, config, reference=reference is not None)
    left_out: dict[str, list[str]] = {
        metric: lacking
        for metric in config.metrics
        if (lacking := sorted(set(KNOWN_METRICS[metric].needs) - can))
    }
    metrics = [metric for metric in config.metrics if metric not in left_out]
    runner = BatchRunner(config.batch_size, context.processes, name)
    collector = Collector(model, list(rows), config, runner, reference)
    evidence = collector.collect(metrics, kind)
    values = context.processes.once(lambda: measure_all(metrics, evidence))
    return SplitResult(
        values,
        {metric: mean for metric, column in values.items() if (mean := mean_of(column)) is not None},
        {metric: ends for metric, column in values.items() if (ends := ends_of(column)) is not None},
        len(rows),
        digest_rows(rows),
        left_out,
        keep_samples(collector, config.samples),
    )


def measure_all(metrics: Sequence[str], evidence: Evidence) -> dict[str, list[float | None]]:
    """Every metric's values per example."""
    return {name: list(measure(name, evidence)) for name in metrics}


def ends_of(values: Sequence[float | None]) -> tuple[float, float, str] | None:
    """The confidence interval of a mean, as plain values."""
    interval = confidence_interval(values, RESAMPLING_SEED)
    return None if interval is None else (interval.low, interval.high, interval.method)


def keep_samples(collector: Collector, count: int) -> list[dict[str, Any]]:
    """The text of evenly spread rows, for people to read."""
    return [
        {
            "prompt": collector.prompts[index],
            "truth": collector.rows[index].answer,
            "answer": collector.answers[index],
            "weights": dict(zip(collector.model.ids, collector.weights[index].tolist(), strict=True)),
        }
        for index in evenly_spaced(range(len(collector.rows)), count)
    ]


def evaluate_stream(
    model: GatedModel,
    stream: RequestStream,
    config: EvaluationConfig,
    context: EvaluationContext | None = None,
) -> dict[str, Any]:
    """Returns every request's splits and every utility split, measured on one model.

    Args:
        model: the model as it is now.
        stream: requests and utility splits.
        config: what to measure.
        context: other processes, finished splits and a reference model; None has none of them.

    Returns:
        `{"requests": {id: {"seen": ..., "held_out": ...}}, "utility": {split: ...}}`, each a
        `SplitResult` as JSON. A request without held-out prompts has only "seen". Where membership metrics
        were asked for and the stream has a holdout, "holdout" is its result with these metrics alone.

    Raises:
        InputError: a metric that was asked for and that no split allows, or a prompt beyond the context.
    """
    context = context or EvaluationContext()
    check_metrics(stream, config, context)
    result: dict[str, dict[str, Any]] = {"requests": {}, UTILITY: {}}
    for owner, split, rows, kind in splits_of(stream):
        name = f"{owner}/{split}"

        def work(
            rows: Sequence[QuestionAnswer] = rows, kind: Kind = kind, name: str = name
        ) -> dict[str, Any]:
            return evaluate_split(model, rows, config, kind, name, context).to_dict()

        group = result[UTILITY] if owner == UTILITY else result["requests"].setdefault(owner, {})
        group[split] = context.resume(name, work)
    inferred = tuple(name for name in config.metrics if name in MEMBERSHIP_METRICS)
    if stream.holdout and inferred:
        only = replace(config, metrics=inferred, samples=0)
        result[HOLDOUT] = context.resume(
            HOLDOUT,
            lambda: evaluate_split(model, stream.holdout, only, "keep", HOLDOUT, context).to_dict(),
        )
    for owner, splits in (*result["requests"].items(), (UTILITY, result[UTILITY])):
        logger.info("  %s: %s", owner, short(splits))
    return result


def check_metrics(stream: RequestStream, config: EvaluationConfig, context: EvaluationContext) -> None:
    """Refuses a metric that was asked for and that no split allows; the default ones may be left out."""
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


def short(splits: Mapping[str, Mapping[str, Any]]) -> str:
    """One line for the log: the first metric of each split."""
    pairs = ((name, next(iter(result["aggregate"].items()), None)) for name, result in splits.items())
    return ", ".join(f"{name} {pair[0]} {pair[1]:.3f}" for name, pair in pairs if pair)
