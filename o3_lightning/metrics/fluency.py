"""Whether an answer is still language: how varied its tokens are, how much it repeats itself.

Shapes: B examples, T tokens of an example's generated answer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from o3_lightning.metrics.evidence import RateGibberish
from o3_lightning.metrics.registry import metric

__all__ = ["gibberish", "repetition", "token_entropy"]

NGRAM = 4


@metric(
    "token_entropy",
    "answer_tokens",
    forget="higher",
    keep="higher",
    meaning="how varied the answer's tokens are; low = repeats itself",
)
def token_entropy(answer_tokens: Sequence[Sequence[int | str]]) -> list[float]:
    """Returns the entropy of the answer's token frequencies over that of T different tokens.

    Args:
        answer_tokens: B generated answers as tokens, the end of the text left out.

    Returns:
        B values in [0, 1]: 1 = no token comes twice, 0 = one token over and over, or at most one token.

    Source:
        closer-look `metrics.py`, `compute_token_entropy`: -sum_f f log2 f / log2 T.

    Example:
        >>> token_entropy([["a", "b", "a", "b"], ["a"]])
        [0.5, 0.0]
    """
    return [normalised_entropy(tokens) for tokens in answer_tokens]


def normalised_entropy(tokens: Sequence[int | str]) -> float:
    """The entropy of the token frequencies in units of log T."""
    if len(tokens) < 2:
        return 0.0
    shares = [count / len(tokens) for count in Counter(tokens).values()]
    return -sum(share * math.log2(share) for share in shares) / math.log2(len(tokens)) + 0.0


@metric(
    "repetition",
    "answer_tokens",
    forget="lower",
    keep="lower",
    meaning="share of the answer's 4-grams that occurred before in it",
)
def repetition(answer_tokens: Sequence[Sequence[int | str]], size: int = NGRAM) -> list[float]:
    """Returns the share of an answer's n-grams that it has said before: 1 - distinct / all.

    Args:
        answer_tokens: B generated answers as tokens, the end of the text left out.
        size: n, >= 1; 4 is what text generation uses.

    Returns:
        B values in [0, 1); 0 where an answer has fewer than n tokens.

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
    forget="lower",
    keep="lower",
    meaning="share to which a classifier finds the answer gibberish",
)
def gibberish(answers: Sequence[str], rate: RateGibberish) -> list[float]:
    """Returns the share to which a classifier finds each answer gibberish.

    Args:
        answers: B generated texts.
        rate: the classifier; OpenUnlearning takes `madhurjindal/autonlp-Gibberish-Detector-492513457`.

    Returns:
        B values in [0, 1], higher = more gibberish. OpenUnlearning reports the classifier's "clean" class,
        which is high for fluent text; turn that round in `rate`.

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
