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

__all__ = ["accuracy", "rouge", "rouge_l_recall"]

RougeKind = Literal["rouge1", "rougeL"]
RougePart = Literal["recall", "precision", "fmeasure"]
READABLE = re.compile("[a-z0-9]")  # what `rouge_score` makes words of


@metric(
    "accuracy",
    "answers",
    "truths",
    forget="lower",
    keep="higher",
    meaning="whether the answer contains the truth",
)
def accuracy(answers: Sequence[str], truths: Sequence[str]) -> list[float]:
    """Returns 1.0 where an answer says the truth, case and punctuation aside, else 0.0.

    The truth's words have to stand in the answer together and in order; more words around them change
    nothing, so a forgotten fact that slips out in a longer sentence counts as known. Where words are written
    together (Chinese, Japanese, Thai, Korean with its particles) characters count as words.

    Args:
        answers: B generated texts.
        truths: B true answers.

    Returns:
        B values, each 0.0 or 1.0. An empty or garbled answer counts as 0.0.

    Raises:
        ValueError: the lists differ in length.

    Example:
        >>> accuracy(["It is Paris.", "Parisian", "Rome"], ["Paris", "Paris", "Oslo"])
        [1.0, 0.0, 0.0]
    """
    return [float(says(answer, truth)) for answer, truth in zip(answers, truths, strict=True)]


def says(answer: str, truth: str) -> bool:
    """Whether the truth's words stand in the answer, together and in order."""
    words = normalise(truth)
    return bool(words) and f" {words} " in f" {normalise(answer)} "


def rouge(
    answers: Sequence[str],
    truths: Sequence[str],
    kind: RougeKind = "rougeL",
    part: RougePart = "recall",
) -> list[float | None]:
    """Returns the words that answer and truth share: as a multiset (ROUGE-1) or in order (ROUGE-L).

    Args:
        answers: B generated texts.
        truths: B true answers, the references.
        kind: "rouge1" or "rougeL".
        part: "recall" (shared words over the truth's), "precision" or "fmeasure" (F1).

    Returns:
        B values in [0, 1]; None where the truth has no word of Latin letters without accents or digits: the
        package reads no others, and a 0 would say that all was forgotten.

    Raises:
        ValueError: the lists differ in length.

    Source:
        The package `rouge_score` with stemming, as in TOFU (recall) and MUSE (F1 of ROUGE-L), which give 0
        where ours is None.

    Example:
        >>> rouge(["it is in Paris"], ["in Paris France"], "rougeL", "fmeasure")
        [0.5714285714285715]
    """
    score = rouge_scorer(kind).score
    return [
        float(getattr(score(truth, answer)[kind], part)) if READABLE.search(truth.lower()) else None
        for answer, truth in zip(answers, truths, strict=True)
    ]


def rouge_l_recall(answers: Sequence[str], truths: Sequence[str]) -> list[float | None]:
    """Returns the share of the truth's words that stand in the answer in order: `rouge` with its defaults.

    Example:
        >>> rouge_l_recall(["it is in Paris"], ["in Paris France"])
        [0.6666666666666666]
    """
    return rouge(answers, truths)


@lru_cache(maxsize=2)
def rouge_scorer(kind: str) -> Any:
    """The scorer that the field uses; made once a kind, for it loads a stemmer."""
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], use_stemmer=True)


ROUGE: tuple[tuple[str, RougeKind, RougePart, str], ...] = (
    ("rouge1_recall", "rouge1", "recall", "share of the truth's words in the answer"),
    ("rouge1_f1", "rouge1", "fmeasure", "F1 of the words that answer and truth share"),
    ("rouge_l_recall", "rougeL", "recall", "share of the truth's words in the answer, in order"),
    ("rouge_l_f1", "rougeL", "fmeasure", "F1 of the words that answer and truth share in order"),
)
for name, kind, part, meaning in ROUGE:
    metric(name, "answers", "truths", forget="lower", keep="higher", meaning=meaning)(
        partial(rouge, kind=kind, part=part)
    )
