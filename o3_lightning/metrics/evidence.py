"""What was collected about one split, for the metrics to read; a metric names the fields it needs.

Shapes: B examples of the split, P perturbed answers of an example, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from o3_lightning.metrics.token_scores import TokenScores

__all__ = ["Encode", "Entail", "Evidence", "Kind", "RateGibberish"]

Kind = Literal["forget", "keep"]
Encode = Callable[[Sequence[str]], Tensor]
"""Texts to embeddings [B, D]; they need not have length one."""
Entail = Callable[[Sequence[str], Sequence[str]], Sequence[bool]]
"""Premises and hypotheses [B] to whether each premise entails its hypothesis."""
RateGibberish = Callable[[Sequence[str]], Sequence[float]]
"""Texts to the share in [0, 1] to which each is gibberish."""


@dataclass(frozen=True)
class Evidence:
    """Everything that was asked of a model on one split; a field that was not asked is None.

    Args:
        kind: "forget" for a split that is to be forgotten, "keep" for utility.
        prompts: B prompts.
        truths: B true answers.
        answers: B generated answers.
        answer_tokens: per generated answer its tokens (ids or pieces), without the end of the text.
        token_scores: B scores of the true answers.
        paraphrased_losses: B mean losses per token of the paraphrased true answer, nats; an example without
            a paraphrase has the loss of its true answer here.
        perturbed_losses: per example P mean losses per token of its wrong answers, nats; P >= 1.
        reference_losses: B mean losses per token of the true answers under a reference model, nats.
        gradient_norms: B gradient norms, as `metrics.gradients.gradient_norm` defines them.
        choices: per example its options, the first being "A"; the true answer names one of them.
        encode: a sentence encoder.
        entail: a natural-language-inference model.
        rate_gibberish: a gibberish classifier.
    """

    kind: Kind
    prompts: Sequence[str]
    truths: Sequence[str]
    answers: Sequence[str] | None = None
    answer_tokens: Sequence[Sequence[int | str]] | None = None
    token_scores: Sequence[TokenScores] | None = None
    paraphrased_losses: Sequence[float] | None = None
    perturbed_losses: Sequence[Sequence[float]] | None = None
    reference_losses: Sequence[float] | None = None
    gradient_norms: Sequence[float] | None = None
    choices: Sequence[Sequence[str]] | None = None
    encode: Encode | None = None
    entail: Entail | None = None
    rate_gibberish: RateGibberish | None = None

    @property
    def losses(self) -> list[float]:
        """B mean losses per token of the true answers, nats."""
        if self.token_scores is None:
            raise ValueError("the evidence has no token_scores")
        return [scores.loss for scores in self.token_scores]
