"""Asks a gated model questions and scores what it says: one split, or every split of a stream.

Each prompt's weights are computed once and held for its answer and for every scored continuation.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from torch import Tensor

from o3_lightning.data.stream import RequestStream
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.gating.answering import answer_prompts, score_answers
from o3_lightning.gating.model import GatedModel
from o3_lightning.metrics.likelihood import probability, truth_ratio, truth_ratio_quality
from o3_lightning.metrics.text import accuracy, rouge_l_recall
from o3_lightning.requests import QuestionAnswer

__all__ = ["SplitResult", "evaluate_split", "evaluate_stream"]

logger = logging.getLogger(__name__)

Kind = Literal["forget", "keep"]
TEXT_METRICS = {"accuracy": accuracy, "rouge_l_recall": rouge_l_recall}


@dataclass(frozen=True)
class SplitResult:
    """What was measured on one split.

    Args:
        values: by metric, one value per example, in the order of the rows.
        aggregate: by metric, the mean over the examples.
        samples: prompt, truth, answer and weights of the first few rows; the only text that is kept.
    """

    values: Mapping[str, list[float]]
    aggregate: Mapping[str, float]
    samples: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as plain JSON."""
        return asdict(self)


def evaluate_split(
    model: GatedModel, rows: Sequence[QuestionAnswer], config: EvaluationConfig, kind: Kind
) -> SplitResult:
    """Returns every configured metric on some rows.

    Args:
        model: answers and scores; within `model.disabled()` it is the base model.
        rows: at least one.
        config: which metrics, and how long an answer may be.
        kind: "forget" for splits that are to be forgotten, "keep" for utility; it decides how a truth
            ratio reads.

    Returns:
        Aggregate and values per example. "truth_ratio" is left out where a row has no perturbed answer.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("expected at least one row, got none")
    prompts, truths = [row.prompt for row in rows], [row.answer for row in rows]
    weights = model.weights(prompts)
    values: dict[str, list[float]] = {}
    answers: list[str] = []
    wanted_texts = [name for name in config.metrics if name in TEXT_METRICS]
    if wanted_texts or config.samples:
        answers = answer_prompts(model, prompts, weights, config.max_new_tokens, config.batch_size)
    for name in wanted_texts:
        values[name] = TEXT_METRICS[name](answers, truths)
    values.update(likelihood_values(model, rows, weights, config, kind))
    aggregate = {name: sum(column) / len(column) for name, column in values.items()}
    return SplitResult(values, aggregate, keep_samples(model, rows, answers, weights, config.samples))


def likelihood_values(
    model: GatedModel, rows: Sequence[QuestionAnswer], weights: Tensor, config: EvaluationConfig, kind: Kind
) -> dict[str, list[float]]:
    """The metrics that need the likelihood of given answers."""
    ratios = "truth_ratio" in config.metrics and all(row.perturbed_answers for row in rows)
    if "probability" not in config.metrics and not ratios:
        return {}
    losses = mean_losses(model, rows, [row.answer for row in rows], range(len(rows)), weights, config)
    values = {"probability": probability(losses)} if "probability" in config.metrics else {}
    if ratios:
        owners = [index for index, row in enumerate(rows) for _ in row.perturbed_answers]
        texts = [text for row in rows for text in row.perturbed_answers]
        flat = iter(mean_losses(model, rows, texts, owners, weights, config))
        wrong = [[next(flat) for _ in row.perturbed_answers] for row in rows]
        values["truth_ratio"] = truth_ratio_quality(truth_ratio(losses, wrong), kind)
    return values


def mean_losses(
    model: GatedModel,
    rows: Sequence[QuestionAnswer],
    answers: Sequence[str],
    owners: Sequence[int],
    weights: Tensor,
    config: EvaluationConfig,
) -> list[float]:
    """Mean negative log-likelihood per token of each answer to its owner's prompt, in nats."""
    prompts = [rows[owner].prompt for owner in owners]
    scores = score_answers(model, prompts, answers, weights[list(owners)], config.batch_size)
    return [-float(score.mean()) for score in scores]


def keep_samples(
    model: GatedModel, rows: Sequence[QuestionAnswer], answers: Sequence[str], weights: Tensor, count: int
) -> list[dict[str, Any]]:
    """The text of evenly spread rows, for people to read."""
    count = min(count, len(rows))
    chosen = [index * len(rows) // count for index in range(count)]
    return [
        {
            "prompt": rows[index].prompt,
            "truth": rows[index].answer,
            "answer": answers[index],
            "weights": dict(zip(model.ids, weights[index].tolist(), strict=True)),
        }
        for index in chosen
    ]


def evaluate_stream(model: GatedModel, stream: RequestStream, config: EvaluationConfig) -> dict[str, Any]:
    """Returns every request's splits and every utility split, measured on one model.

    Args:
        model: the model as it is now.
        stream: requests and utility splits.
        config: what to measure.

    Returns:
        `{"requests": {id: {"seen": ..., "held_out": ...}}, "utility": {split: ...}}`, each a
        `SplitResult` as JSON. A request without held-out prompts has only "seen".
    """
    requests: dict[str, dict[str, Any]] = {}
    for request in stream.requests:
        splits = {"seen": request.rows, "held_out": request.held_out}
        requests[request.id] = {
            name: evaluate_split(model, rows, config, "forget").to_dict()
            for name, rows in splits.items()
            if rows
        }
        logger.info("  %s: %s", request.id, short(requests[request.id]))
    utility = {
        name: evaluate_split(model, rows, config, "keep").to_dict() for name, rows in stream.utility.items()
    }
    logger.info("  utility: %s", short(utility))
    return {"requests": requests, "utility": utility}


def short(splits: Mapping[str, Mapping[str, Any]]) -> str:
    """One line for the log: the first metric of each split."""
    pairs = ((name, next(iter(result["aggregate"].items()))) for name, result in splits.items())
    return ", ".join(f"{name} {metric} {value:.3f}" for name, (metric, value) in pairs)
