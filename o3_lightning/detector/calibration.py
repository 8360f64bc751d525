"""From a score to a weight in [0, 1], learnt from the forget prompts alone.

Scores of forget prompts come from folds that have not seen them; scores of made-up neighbours come from the
same prompts with their rare words, or the common name they are about, exchanged. No test data, no retained
data, no prompt scored against itself.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

HALF = 0.5
MOST_NARROWING, NARROWING_STEP = 2.0, 0.1
LEAST_RECALL = 0.75  # of unseen forget prompts that a narrowed request still finds
ROUNDING = 9  # decimals of a count of prompts; far finer than one, far coarser than float64


def folds_of(rows: int, folds: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields row numbers to fit on and row numbers to score; every row is scored once.

    A single row is fitted on and scored, as there is no other.
    """
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
        score: from row numbers to fit on and row numbers to score, to scores [len(second), ...].
    """
    parts = [(scored, score(fitted, scored)) for fitted, scored in folds_of(rows, folds, seed)]
    result = torch.empty(rows, *parts[0][1].shape[1:], dtype=parts[0][1].dtype)
    for scored, values in parts:
        result[scored] = values
    return result


def tail_weights(scores: Tensor, tail_quantile: float) -> Tensor:
    """Returns min(1, p / tail_quantile) ^ 2, p = P(z < score) of a standard normal z.

    Args:
        scores: standardised scores of any shape: 0 for a typical unseen forget prompt.
        tail_quantile: share of a normal distribution that gets a weight below 1, in (0, 1).

    Returns:
        Weights in [0, 1], float32, never falling in the score: 0 far below, 1 above the tail.

    Example:
        >>> tail_weights(torch.tensor([0.0, -9.0]), 0.05).tolist()
        [1.0, 0.0]
    """
    below = HALF * torch.erfc(-scores.double() / math.sqrt(2))
    weights = (below / tail_quantile).clamp(0, 1).square().float()
    return torch.where(weights < torch.finfo(torch.float32).eps, torch.zeros_like(weights), weights)


def fit_scale_floor(neighbours: Tensor, *, quantile: float, deviations: float) -> float:
    """Returns how much wider the slope of the weight may be, at least 1, so that made-up neighbours stay out.

    Cross-fitting cannot see a phrasing that no forget prompt has. Where the made-up neighbours are far away,
    the room between is shared: their upper quantile is put `deviations` standard deviations below the center.

    Args:
        neighbours: standardised scores of the made-up neighbours [N].
        quantile: how close a neighbour is guarded against, in (0, 1).
        deviations: where that neighbour lands on the stretched scale, positive.
    """
    closest = float(torch.quantile(neighbours.double(), quantile))
    return max(1.0, -closest / deviations)


def fit_narrowing(own: Tensor, neighbours: Tensor, *, tail_quantile: float, least_gain: float) -> float:
    """Returns by how many standard deviations all scores are lowered, so that fewer neighbours are refused.

    The shift maximises the mean weight of unseen forget prompts less that of made-up neighbours, as long as
    `LEAST_RECALL` of the forget prompts are found.

    Args:
        own: standardised scores of unseen forget prompts [N].
        neighbours: of the made-up neighbours [M].
        tail_quantile: of `tail_weights`.
        least_gain: without a gain of so much nothing is lowered.

    Returns:
        0 to `MOST_NARROWING`.
    """

    def weigh(scores: Tensor) -> Tensor:
        return tail_weights(scores[None] - shifts[:, None], tail_quantile)

    shifts = torch.arange(0.0, MOST_NARROWING + NARROWING_STEP / 2, NARROWING_STEP)
    found = weigh(own)
    gain = found.mean(dim=1) - weigh(neighbours).mean(dim=1)
    allowed = (found >= HALF).float().mean(dim=1) >= LEAST_RECALL
    best = int(gain.masked_fill(~allowed, -1).argmax())
    return float(shifts[best]) if allowed[best] and gain[best] - gain[0] >= least_gain else 0.0


@dataclass(frozen=True)
class RecallCheck:
    """How many forget prompts a detector finds that it has not seen.

    Args:
        target: promised share of unseen forget prompts with a weight of at least a half.
        measured: that share on held-out folds, each calibrated on the other folds.
        conformal: weight that an unseen forget prompt reaches with the probability `target`, if it is
            exchangeable with those given; 0 where the request is too small to say.
    """

    target: float
    measured: float
    conformal: float

    @property
    def met(self) -> bool:
        """Whether held-out folds and conformal quantile both keep the promise."""
        return self.measured >= self.target and self.conformal >= HALF


def check_recall(
    sums: Tensor,
    scale_floor: float,
    *,
    target: float,
    narrowing: float = 0.0,
    tail_quantile: float,
    folds: int,
    seed: int,
) -> RecallCheck:
    """Checks the promised recall on held-out folds.

    Args:
        sums: cross-fitted scores before standardising [N], N >= 2.
        scale_floor: from `fit_scale_floor`.
        narrowing: from `fit_narrowing`.
        target: promised share, in (0, 1).
        tail_quantile: of `tail_weights`.
        folds: parts.
        seed: of the parts.
    """

    def weigh(fitted: Tensor, scored: Tensor) -> Tensor:
        spread = sums[fitted].std(correction=0).clamp_min(torch.finfo(sums.dtype).eps)
        scores = (sums[scored] - sums[fitted].mean()) / (spread * scale_floor)
        return tail_weights(scores - narrowing, tail_quantile)

    weights = cross_fit(len(sums), folds, seed, weigh)
    found = float((weights >= HALF).double().mean())
    spared = math.ceil(round(target * (len(sums) + 1), ROUNDING))  # 0.9 of 20 are 18, not more
    rank = len(sums) + 1 - spared
    conformal = float(weights.sort().values[rank - 1]) if rank >= 1 else 0.0
    return RecallCheck(target, found, conformal)
