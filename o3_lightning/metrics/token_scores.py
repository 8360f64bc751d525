"""What one teacher-forced pass leaves of an answer: a few numbers a token, never a row of the vocabulary.

Shapes: T tokens of one answer, N tokens of several answers one after another, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["TokenScores", "counted", "score_rows", "score_tokens", "split_scores"]

CHUNK_TOKENS = 256  # rows of the vocabulary in float32 at once: 256 x 128k are 131 MB


@dataclass(frozen=True, eq=False)
class TokenScores:
    """What likelihood, memorization and membership metrics need to know of one (prompt, answer) pair.

    All fields lie on the CPU. The last token is the end of the text where the
    answers were encoded with one.

    Args:
        log_probs: [T] float32, log-probability of each answer token given all before it, nats, each <= 0.
        vocabulary_mean: [T] float32, sum_v p_v log p_v at each position; minus the entropy, nats, each <= 0.
        vocabulary_deviation: [T] float32, standard deviation of log p_v under p at each position, >= 0.
        is_argmax: [T] bool, whether the answer token is the likeliest one.

    Raises:
        ValueError: the fields differ in length, or there is no token.
    """

    log_probs: Tensor
    vocabulary_mean: Tensor
    vocabulary_deviation: Tensor
    is_argmax: Tensor

    def __post_init__(self) -> None:
        shapes = {
            tuple(field.shape)
            for field in (self.log_probs, self.vocabulary_mean, self.vocabulary_deviation, self.is_argmax)
        }
        if len(shapes) != 1 or len(next(iter(shapes))) != 1 or shapes == {(0,)}:
            raise ValueError(f"expected four fields of one shape [T] with T >= 1, got {sorted(shapes)}")

    def __len__(self) -> int:
        return len(self.log_probs)

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood per token, nats, last token included; what training minimises."""
        return -float(self.log_probs.double().mean())

    @property
    def entropy(self) -> Tensor:
        """[T] float32, entropy of the model's distribution at each position, nats."""
        return -self.vocabulary_mean

    def without_last(self) -> TokenScores:
        """Returns the scores without the last token; a single token stays, for there is nothing else."""
        return self if len(self) == 1 else self[: len(self) - 1]

    def __getitem__(self, part: slice) -> TokenScores:
        return TokenScores(
            self.log_probs[part],
            self.vocabulary_mean[part],
            self.vocabulary_deviation[part],
            self.is_argmax[part],
        )


def counted(scores: Sequence[TokenScores], drop_last: bool) -> list[TokenScores]:
    """Returns the tokens of each answer that a metric counts: all, or all but the last."""
    return [part.without_last() if drop_last else part for part in scores]


@torch.no_grad()
def score_tokens(
    logits: Tensor, targets: Tensor, lengths: Sequence[int], chunk_tokens: int = CHUNK_TOKENS
) -> list[TokenScores]:
    """Returns the scores of several answers from the logits that predict their tokens.

    Args:
        logits: [N, V] of any float type: only the positions that predict an answer token, answers one after
            another. They are turned into float32 a few rows at a time.
        targets: [N] int64, the answers' tokens.
        lengths: how many of the N tokens each answer has, each >= 1, summing up to N.
        chunk_tokens: rows in float32 at once, >= 1; it changes memory, not values.

    Returns:
        One `TokenScores` an answer, on the CPU.

    Raises:
        ValueError: the lengths do not sum up to N, or one of them is 0.

    Example:
        >>> scores = score_tokens(torch.zeros(3, 4), torch.tensor([0, 1, 2]), [1, 2])
        >>> [len(answer) for answer in scores], round(scores[1].loss, 4)
        ([1, 2], 1.3863)
    """
    if min(lengths, default=0) < 1 or sum(lengths) != len(targets):
        raise ValueError(f"expected lengths >= 1 that sum up to {len(targets)} tokens, got {list(lengths)}")
    rows = [
        torch.stack(score_rows(part, wanted))
        for part, wanted in zip(
            torch.split(logits, chunk_tokens), torch.split(targets, chunk_tokens), strict=True
        )
    ]
    return split_scores(torch.cat(rows, dim=1).cpu(), lengths)


def split_scores(fields: Tensor, lengths: Sequence[int]) -> list[TokenScores]:
    """Returns the scores of several answers from their fields one after another.

    Args:
        fields: [4, N] float32, the four results of `score_rows` stacked, on the CPU.
        lengths: how many of the N tokens each answer has, each >= 1, summing up to N.
    """
    return [
        TokenScores(part[0], part[1], part[2], part[3].bool())
        for part in torch.split(fields, list(lengths), dim=1)
    ]


def score_rows(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the four fields of `TokenScores` for some rows, without their answers' borders.

    Args:
        logits: [N, V] of any float type, the positions that predict an answer token.
        targets: [N] int64.

    Returns:
        log_probs, vocabulary_mean, vocabulary_deviation and is_argmax (0.0 or 1.0), each [N] float32 where
        the logits lie.
    """
    likely = logits.float().log_softmax(-1)
    chosen = likely.gather(1, targets[:, None]).squeeze(1)
    is_argmax = likely.argmax(-1) == targets
    shares = likely.exp()
    finite = likely.masked_fill(shares == 0, 0.0)  # a banned token has -inf, and 0 * -inf is no number
    mean = (shares * finite).sum(-1)
    variance = (shares * (finite - mean[:, None]).square()).sum(-1)
    return chosen, mean, variance.sqrt(), is_argmax.float()
