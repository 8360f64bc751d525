"""Fluency of generated answers: token variety, repetition, gibberish.

Shapes: B examples, T tokens of an example's generated answer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from o3_lightning.metrics.registry import RateGibberish, metric

__all__ = ["gibberish", "repetition", "token_entropy"]

NGRAM = 4


@metric(
    "token_entropy",
    "answer_tokens",
    meaning="how varied the answer's tokens are; low = repetitive",
    forget="higher",
)
def token_entropy(answer_tokens: Sequence[Sequence[int | str]]) -> list[float]:
    """Returns the entropy of each answer's token frequencies, divided by log T; B values in [0, 1].

    1 means that no token repeats, 0 that all tokens are the same or that there is at most one.

    Args:
        answer_tokens: B generated answers as tokens, without the end token.

    Source:
        closer-look `metrics.py`, `compute_token_entropy`: -sum_f f log2 f / log2 T.

    Example:
        >>> token_entropy([["a", "b", "a", "b"], ["a"]])
        [0.5, 0.0]
    """
    values = []
    for tokens in answer_tokens:
        shares = [count / len(tokens) for count in Counter(tokens).values()]
        entropy = -sum(share * math.log2(share) for share in shares)
        values.append(entropy / math.log2(len(tokens)) + 0.0 if len(tokens) > 1 else 0.0)
    return values


@metric(
    "repetition",
    "answer_tokens",
    meaning="share of the answer's 4-grams that occur earlier in it",
    keep="lower",
)
def repetition(answer_tokens: Sequence[Sequence[int | str]], size: int = NGRAM) -> list[float]:
    """Returns the share of repeated n-grams in each answer, 1 - distinct / all; B values in [0, 1).

    Args:
        answer_tokens: B generated answers as tokens, without the end token; 0 for fewer than n tokens.
        size: n, >= 1; 4 is customary in text generation.

    Raises:
        ValueError: a size below 1.

    Source:
        Welleck et al. 2020, "seq-rep-n".

    Example:
        >>> repetition([["a", "b", "a", "b", "a"]], size=2)
        [0.5]
    """
    if size < 1:
        raise ValueError(f"expected n-grams of 1 token or more, got {size}")
    values = []
    for tokens in answer_tokens:
        grams = [tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)]
        values.append(1 - len(set(grams)) / len(grams) if grams else 0.0)
    return values


@metric(
    "gibberish",
    "answers",
    "rate_gibberish",
    meaning="probability that the answer is gibberish, by a classifier",
    keep="lower",
)
def gibberish(answers: Sequence[str], rate: RateGibberish) -> list[float]:
    """Returns the classifier's probability that each answer is gibberish; B values in [0, 1].

    Args:
        answers: B generated texts.
        rate: the classifier; OpenUnlearning uses `madhurjindal/autonlp-Gibberish-Detector-492513457` and
            reports its "clean" class, so `rate` returns one minus that.

    Raises:
        ValueError: the classifier gives another number of values, or one outside [0, 1].

    Example:
        >>> gibberish(["xq zz"], lambda texts: [0.9])
        [0.9]
    """
    values = [float(value) for value in rate(answers)]
    if len(values) != len(answers) or not all(0 <= value <= 1 for value in values):
        raise ValueError(f"expected {len(answers)} values in [0, 1] of the gibberish classifier")
    return values
