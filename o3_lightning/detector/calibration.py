"""From a score to a weight in [0, 1], learnt from the forget prompts alone by cross-fitting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

__all__ = ["cross_fit", "folds_of", "gaussian_weights"]

SMALLEST_SPREAD = 1e-6


def folds_of(rows: int, folds: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields row numbers to fit on and row numbers to score, every row scored once; one row is its own fold."""
    count = min(folds, rows)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    for fold in range(count):
        scored = order[fold::count]
        fitted = order[~torch.isin(order, scored)]
        yield (fitted if len(fitted) else scored), scored


def cross_fit(rows: int, folds: int, seed: int, score: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Returns the scores of all rows, each from a fit that has not seen it.

    Args:
        rows: how many forget prompts.
        folds: parts.
        seed: of the random parts.
        score: from row numbers to fit on and row numbers to score to scores [len(second), C].
    """
    parts = [(scored, score(fitted, scored)) for fitted, scored in folds_of(rows, folds, seed)]
    result = torch.empty(rows, *parts[0][1].shape[1:], dtype=parts[0][1].dtype)
    for scored, values in parts:
        result[scored] = values
    return result


def gaussian_weights(scores: Tensor, mean: Tensor, spread: Tensor, tail: float) -> Tensor:
    """Returns min(1, p / tail), p the chance that a forget prompt scores lower under a Gaussian.

    Args:
        scores: [B, K].
        mean: mean cross-fitted score of each request [K].
        spread: its standard deviation [K], positive.
        tail: share of forget prompts that get a weight below 1, in (0, 1).

    Returns:
        Weights [B, K] in [0, 1], not decreasing in the score, 0 far below, 1 above the tail.
    """
    z = (scores - mean) / spread.clamp_min(SMALLEST_SPREAD)
    below = 0.5 * torch.erfc(-z.double() / math.sqrt(2))
    return (below / tail).clamp(0, 1).float()
