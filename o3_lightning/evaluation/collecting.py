"""Asks a model all that some metrics need to know of one split, each thing once.

Shapes: B rows, K requests, P perturbed answers of a row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from torch import Tensor

from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.evaluation.judges import load_encode, load_entail, load_gibberish
from o3_lightning.evaluation.passes import BatchRunner, answer_rows, gradient_norms, score_pairs, weigh
from o3_lightning.gating.model import GatedModel
from o3_lightning.metrics.registry import Evidence, Kind, needs_of
from o3_lightning.metrics.token_scores import TokenScores

__all__ = ["Collector", "options_in", "split_needs"]

OPTION = re.compile(r"\(([A-H])\)\s*(.*?)(?=\s*\([A-H]\)|$)")
JUDGES: dict[str, Callable[[EvaluationConfig], Any]] = {
    "encode": load_encode,
    "entail": load_entail,
    "rate_gibberish": load_gibberish,
}


def split_needs(rows: Sequence[QuestionAnswer], config: EvaluationConfig, *, reference: bool) -> set[str]:
    """Returns the fields of `Evidence` that these rows and this configuration can fill."""
    can = {"answers", "answer_tokens", "token_scores", "paraphrased_losses", "gradient_norms", "encode"}
    if all(row.perturbed_answers for row in rows):
        can.add("perturbed_losses")
    if all(options_in(row.prompt) for row in rows):
        can.add("choices")
    if reference:
        can.add("reference_losses")
    if config.entailment_model:
        can.add("entail")
    if config.gibberish_model:
        can.add("rate_gibberish")
    return can


def options_in(prompt: str) -> list[str]:
    """Returns the options that a multiple-choice prompt lists after "Options:"; none where it lists none.

    Example:
        >>> options_in("Which? Options: (A) this one (B) that")
        ['this one', 'that']
    """
    listed = prompt.rpartition("Options:")
    return [text.strip() for _, text in OPTION.findall(listed[2])] if listed[1] else []


@dataclass(frozen=True)
class Collector:
    """Collects the evidence of one split from one model.

    Args:
        model: is asked; each prompt's weights are computed once and held.
        rows: at least one.
        config: which metrics there will be, how long an answer may be.
        runner: batches, shared between processes.
        reference_losses: of each row under a reference model, nats; None where there is none.
    """

    model: GatedModel
    rows: Sequence[QuestionAnswer]
    config: EvaluationConfig
    runner: BatchRunner
    reference_losses: Sequence[float] | None = None

    @cached_property
    def prompts(self) -> list[str]:
        """The prompts, B of them."""
        return [row.prompt for row in self.rows]

    @cached_property
    def truths(self) -> list[str]:
        """The true answers, B of them."""
        return [row.answer for row in self.rows]

    @cached_property
    def weights(self) -> Tensor:
        """[B,K]."""
        return weigh(self.model, self.prompts, self.runner)

    @cached_property
    def answer_tokens(self) -> list[list[int]]:
        """The tokens of the greedy answers."""
        encoded = [self.model.tokens.encode(prompt) for prompt in self.prompts]
        return answer_rows(self.model, encoded, self.weights, self.config.max_new_tokens, self.runner)

    @cached_property
    def answers(self) -> list[str]:
        """The greedy answers."""
        decode = self.model.tokenizer.decode
        return [decode(tokens, skip_special_tokens=True).strip() for tokens in self.answer_tokens]

    @cached_property
    def token_scores(self) -> list[TokenScores]:
        """The scores of the true answers."""
        return self.score(self.truths, list(range(len(self.rows))))

    def score(self, answers: Sequence[str], owners: list[int]) -> list[TokenScores]:
        """The scores of any answers to the prompts of the rows that own them."""
        prompts = [self.prompts[owner] for owner in owners]
        return score_pairs(self.model, prompts, answers, self.weights[owners], self.runner)

    def paraphrased_losses(self) -> list[float]:
        """Losses of the paraphrased true answers; of the true ones where a row has no paraphrase."""
        losses = [scores.loss for scores in self.token_scores]
        owners = [place for place, row in enumerate(self.rows) if row.paraphrased_answer is not None]
        texts = [str(self.rows[owner].paraphrased_answer) for owner in owners]
        for owner, scores in zip(owners, self.score(texts, owners) if owners else [], strict=True):
            losses[owner] = scores.loss
        return losses

    def perturbed_losses(self) -> list[list[float]]:
        """Losses of the wrong answers, P a row."""
        owners = [place for place, row in enumerate(self.rows) for _ in row.perturbed_answers]
        texts = [text for row in self.rows for text in row.perturbed_answers]
        scores = iter(self.score(texts, owners))
        return [[next(scores).loss for _ in row.perturbed_answers] for row in self.rows]

    def collect(self, metrics: Sequence[str], kind: Kind) -> Evidence:
        """Returns the evidence that some metrics need, all of which the split can give."""
        needs = needs_of(metrics)
        found: dict[str, Callable[[], Any]] = {
            "answers": lambda: self.answers,
            "answer_tokens": lambda: self.answer_tokens,
            "token_scores": lambda: self.token_scores,
            "paraphrased_losses": self.paraphrased_losses,
            "perturbed_losses": self.perturbed_losses,
            "reference_losses": lambda: self.reference_losses,
            "gradient_norms": lambda: gradient_norms(
                self.model, self.prompts, self.truths, self.weights, self.runner
            ),
            "choices": lambda: [options_in(prompt) for prompt in self.prompts],
            **{need: partial(load, self.config) for need, load in JUDGES.items()},
        }
        given = {need: found[need]() for need in found if need in needs}
        return Evidence(kind, self.prompts, self.truths, **given)
