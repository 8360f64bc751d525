"""Metrics of generated text against the truth, one value per example.

Shapes: B examples.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Literal

from o3_lightning.data.normalise import normalise
from o3_lightning.metrics.registry import metric

__all__ = ["accuracy", "rouge", "rouge_l_recall", "says"]

RougeKind = Literal["rouge1", "rougeL"]
RougePart = Literal["recall", "precision", "fmeasure"]
READABLE = re.compile("[a-z0-9]")  # the only characters that `rouge_score` reads


@metric("accuracy", "answers", "truths", meaning="whether the answer contains the truth")
def accuracy(answers: Sequence[str], truths: Sequence[str]) -> list[float]:
    """Returns 1.0 where an answer contains the truth, else 0.0; B values.

    The truth's words have to occur together and in order, ignoring case and punctuation; other words may
    surround them, so a forgotten fact inside a longer sentence counts as known. In scripts without spaces
    between words (Chinese, Japanese, Thai; Korean with its particles) characters count as words. An empty or
    garbled answer counts as 0.0.

    Args:
        answers: B generated texts.
        truths: B true answers.

    Raises:
        ValueError: the lists differ in length.

    Example:
        >>> accuracy(["It is Paris.", "Parisian", "Rome"], ["Paris", "Paris", "Oslo"])
        [1.0, 0.0, 0.0]
    """
    return [float(says(answer, truth)) for answer, truth in zip(answers, truths, strict=True)]


def says(answer: str, truth: str) -> bool:
    """Returns whether the truth's words occur in the answer, see `accuracy`."""
    words = normalise(truth)
    return bool(words) and f" {words} " in f" {normalise(answer)} "


def rouge(
    answers: Sequence[str],
    truths: Sequence[str],
    kind: RougeKind = "rougeL",
    part: RougePart = "recall",
) -> list[float | None]:
    """Returns the overlap of the words of answer and truth; B values in [0, 1].

    Args:
        answers: B generated texts.
        truths: B true answers, the references.
        kind: "rouge1" compares the words as multisets, "rougeL" in order.
        part: "recall" (shared words over the truth's), "precision" or "fmeasure" (F1).

    Returns:
        None where the truth has no character of a-z or 0-9: `rouge_score` reads no others, and 0 would mean
        that everything was forgotten.

    Raises:
        ValueError: the lists differ in length.

    Source:
        The package `rouge_score` with stemming, as in TOFU (recall) and MUSE (F1 of ROUGE-L), which give 0
        where this gives None.

    Example:
        >>> rouge(["it is in Paris"], ["in Paris France"], "rougeL", "fmeasure")
        [0.5714285714285715]
    """
    score = rouge_scorer(kind).score
    return [
        float(getattr(score(truth, answer)[kind], part)) if READABLE.search(truth.lower()) else None
        for answer, truth in zip(answers, truths, strict=True)
    ]


rouge_l_recall = partial(rouge, kind="rougeL", part="recall")


@lru_cache(maxsize=2)
def rouge_scorer(kind: str) -> Any:
    """The scorer of one kind, cached because it loads a stemmer."""
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], use_stemmer=True)


ROUGE: tuple[tuple[str, RougeKind, RougePart, str], ...] = (
    ("rouge1_recall", "rouge1", "recall", "share of the truth's words in the answer"),
    ("rouge1_f1", "rouge1", "fmeasure", "F1 of the words that answer and truth share"),
    ("rouge_l_recall", "rougeL", "recall", "share of the truth's words in the answer, in order"),
    ("rouge_l_f1", "rougeL", "fmeasure", "F1 of the words that answer and truth share in order"),
)
for name, kind, part, meaning in ROUGE:
    metric(name, "answers", "truths", meaning=meaning)(partial(rouge, kind=kind, part=part))
