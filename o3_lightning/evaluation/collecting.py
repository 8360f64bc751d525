"""Collects the evidence that some metrics need from one model on one split, each piece once.

Shapes: B rows, K requests, P perturbed answers of a row.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.detector.encoder import load_encoder
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.evaluation.judges import classify, load_classifier, probabilities
from o3_lightning.evaluation.passes import BatchRunner, answer_rows, gradient_norms, score_pairs, weigh
from o3_lightning.gating.model import GatedModel
from o3_lightning.gating.plan import plan_rows
from o3_lightning.metrics.registry import Encode, Entail, Evidence, Kind, Rate, needs_of
from o3_lightning.metrics.token_scores import TokenScores

OPTION = re.compile(r"\(([A-H])\)\s*(.*?)(?=\s*\([A-H]\)|$)")
Classify = Callable[[Sequence[str], Sequence[str] | None], list[Tensor]]
cached_encoder = lru_cache(maxsize=2)(load_encoder)  # one encoder for all splits of an evaluation


def load_encode(config: EvaluationConfig) -> Encode:
    """Returns the sentence encoder: the mean of the last layer over the tokens, [B,D] for B texts."""
    encoder = cached_encoder(config.encoder)

    def encode(texts: Sequence[str]) -> Tensor:
        features: Tensor = encoder.encode(texts)
        return features[:, -1]

    return encode


def load_entail(config: EvaluationConfig) -> Entail:
    """Returns the inference model: whether its most likely label is an entailment.

    Raises:
        InputError: the model cannot be loaded, or has no label "entailment".
    """
    judge, label = load_judge(config.entailment_model, "evaluation.entailment_model", "entailment")

    def entail(premises: Sequence[str], hypotheses: Sequence[str]) -> list[bool]:
        return [bool(row.argmax() == label) for row in judge(premises, hypotheses)]

    return entail


def load_gibberish(config: EvaluationConfig) -> Rate:
    """Returns the gibberish classifier: one minus the probability of its label "clean".

    Raises:
        InputError: the model cannot be loaded, or has no label "clean".
    """
    judge, label = load_judge(config.gibberish_model, "evaluation.gibberish_model", "clean")
    return lambda texts: [1 - float(row[label]) for row in judge(texts, None)]


def load_toxicity(config: EvaluationConfig) -> Rate:
    """Returns the toxicity classifier: the probability of its label "toxicity".

    Raises:
        InputError: the model cannot be loaded, or has no such label.
    """
    judge, label = load_judge(config.toxicity_model, "evaluation.toxicity_model", "toxicity")
    return lambda texts: [float(row[label]) for row in judge(texts, None)]


@lru_cache(maxsize=2)
def load_judge(name: str, field: str, label: str) -> tuple[Classify, int]:
    """A text classifier that gives the probability of each label, and the number of one label."""
    model, tokenizer = load_classifier(name, field)
    labels = {str(text).lower(): int(number) for number, text in model.config.id2label.items()}
    if label not in labels:
        raise InputError(f"expected a label '{label}', '{name}' has {', '.join(labels)}", field=field)

    def judge(texts: Sequence[str], pairs: Sequence[str] | None) -> list[Tensor]:
        return [probabilities(model, row) for row in classify(model, tokenizer, texts, pairs)]

    return judge, labels[label]


def split_needs(rows: Sequence[QuestionAnswer], config: EvaluationConfig, *, reference: bool) -> set[str]:
    """Returns the fields of `Evidence` that these rows and this configuration can fill."""
    allowed = {
        "perturbed_losses": all(row.perturbed_answers for row in rows),
        "choices": all(options_in(row.prompt) for row in rows),
        "reference_losses": reference,
        "entail": config.entailment_model,
        "rate_gibberish": config.gibberish_model,
        "rate_toxicity": config.toxicity_model,
        "tests": config.run_code and all(row.tests for row in rows),
    }
    always = {"answers", "answer_tokens", "token_scores", "paraphrased_losses", "encode"}
    always |= {"gradient_norms", "short_gradient_norms"}
    return always | {need for need, can in allowed.items() if can}


def options_in(prompt: str) -> list[str]:
    """Returns the options that a multiple-choice prompt lists after "Options:".

    Example:
        >>> options_in("Which? Options: (A) this one (B) that")
        ['this one', 'that']
    """
    listed = prompt.rpartition("Options:")
    return [text.strip() for _, text in OPTION.findall(listed[2])] if listed[1] else []


@dataclass(frozen=True)
class Collector:
    """Collects the evidence of one split, at least one row, from one model.

    The weights of each prompt are computed once and held. `reference_losses` are those of each row under a
    reference model, nats; None where there is none.
    """

    model: GatedModel
    rows: Sequence[QuestionAnswer]
    config: EvaluationConfig
    runner: BatchRunner
    reference_losses: Sequence[float] | None = None

    @cached_property
    def prompts(self) -> list[str]:
        """B prompts."""
        return [row.prompt for row in self.rows]

    @cached_property
    def truths(self) -> list[str]:
        """B true answers."""
        return [row.truth for row in self.rows]

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
        return [self.model.base.read_answer(tokens) for tokens in self.answer_tokens]

    @cached_property
    def token_scores(self) -> list[TokenScores]:
        """The scores of the true answers."""
        return self.score(self.truths, list(range(len(self.rows))))

    def score(self, answers: Sequence[str], owners: list[int]) -> list[TokenScores]:
        """Returns the scores of answers to the prompts of the rows that own them."""
        prompts = [self.prompts[owner] for owner in owners]
        return score_pairs(self.model, prompts, answers, self.weights[owners], self.runner)

    def refusals(self) -> dict[str, int]:
        """Returns the number of refused answers: by the prompt's weights, and by `gate.check_answers`."""
        if not self.model.ids:
            return {"by_weight": 0, "by_check": 0}
        owned, refusal = (
            torch.tensor(self.model.has_adapter),
            self.model.refusal_text(self.config.max_new_tokens),
        )
        planned = plan_rows(self.weights, owned, self.model.gate_config).refused.tolist()
        by_weight = [planned[row] for row, answer in enumerate(self.answers) if answer == refusal]
        return {"by_weight": sum(by_weight), "by_check": len(by_weight) - sum(by_weight)}

    def paraphrased_losses(self) -> list[float]:
        """Returns the losses of the paraphrased true answers, or of the true ones without a paraphrase."""
        losses = [scores.loss for scores in self.token_scores]
        owners = [place for place, row in enumerate(self.rows) if row.paraphrased_answer is not None]
        texts = [str(self.rows[owner].paraphrased_answer) for owner in owners]
        for owner, scores in zip(owners, self.score(texts, owners) if owners else [], strict=True):
            losses[owner] = scores.loss
        return losses

    def perturbed_losses(self) -> list[list[float]]:
        """Returns the losses of the wrong answers, P per row."""
        owners = [place for place, row in enumerate(self.rows) for _ in row.perturbed_answers]
        texts = [text for row in self.rows for text in row.perturbed_answers]
        scores = iter(self.score(texts, owners))
        return [[next(scores).loss for _ in row.perturbed_answers] for row in self.rows]

    def collect(self, metrics: Sequence[str], kind: Kind) -> Evidence:
        """Returns the evidence that some metrics need, all of which the split allows."""
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
            "short_gradient_norms": lambda: gradient_norms(
                self.model, self.prompts, self.truths, self.weights, self.runner, drop_last=True
            ),
            "choices": lambda: [options_in(prompt) for prompt in self.prompts],
            "encode": lambda: load_encode(self.config),
            "entail": lambda: load_entail(self.config),
            "rate_gibberish": lambda: load_gibberish(self.config),
            "rate_toxicity": lambda: load_toxicity(self.config),
            "tests": lambda: [row.tests for row in self.rows],
        }
        given = {need: found[need]() for need in found if need in needs}
        return Evidence(kind, self.prompts, self.truths, **given)
