"""Memorization: how much of an answer greedy decoding reproduces, token by token.

Shapes: B examples, T tokens of an example's answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from o3_lightning.metrics.registry import metric
from o3_lightning.metrics.token_scores import TokenScores, counted

__all__ = ["exact_memorization", "extraction_strength"]


@metric(
    "exact_memorization", "token_scores", meaning="share of the answer's tokens that are the most likely ones"
)
def exact_memorization(scores: Sequence[TokenScores], *, drop_last: bool = True) -> list[float]:
    """Returns the share of teacher-forced answer tokens that are the model's argmax; B values in [0, 1].

    Args:
        scores: B answers.
        drop_last: leave out the last token (the end token), as OpenUnlearning does.

    Source:
        OpenUnlearning `exact_memorization`; Tirumala et al. 2022.

    Example:
        >>> import torch
        >>> none, hits = torch.zeros(4), torch.tensor([True, False, True, True])
        >>> exact_memorization([TokenScores(none, none, none, hits)], drop_last=False)
        [0.75]
    """
    return [float(part.is_argmax.double().mean()) for part in counted(scores, drop_last)]


@metric(
    "extraction_strength@openunlearning",
    "token_scores",
    meaning="the same with OpenUnlearning's floor of one token",
)
def extraction_strength(
    scores: Sequence[TokenScores], *, floor: bool = True, drop_last: bool = True
) -> list[float]:
    """Returns 1 - k / T, k being the shortest prefix after which every token is the argmax; B values.

    Args:
        scores: B answers.
        floor: give 1 / T to an answer of which not even the last token is the argmax, as OpenUnlearning's
            code does (its loop ends one step early); False gives 0, as the definition says.
        drop_last: leave out the last token (the end token), as OpenUnlearning does.

    Source:
        Carlini et al. 2021; OpenUnlearning `extraction_strength`.

    Example:
        >>> import torch
        >>> none, hits = torch.zeros(4), torch.tensor([True, False, True, True])
        >>> extraction_strength([TokenScores(none, none, none, hits)], drop_last=False)
        [0.5]
    """
    values = []
    for part in counted(scores, drop_last):
        correct = part.is_argmax.tolist()
        run = next((number for number, hit in enumerate(reversed(correct)) if not hit), len(correct))
        values.append((max(run, 1) if floor else run) / len(correct))
    return values


metric(
    "extraction_strength",
    "token_scores",
    meaning="share of the answer that greedy decoding completes from the shortest sufficient prefix",
)(partial(extraction_strength, floor=False))
