"""Reduces a teacher-forced pass to four numbers per answer token, so that no vocabulary row is kept.

Shapes: T tokens of one answer, N tokens of several answers in sequence, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

CHUNK_TOKENS = 256  # rows of the vocabulary in float32 at once: 256 x 128k are 131 MB


@dataclass(frozen=True, eq=False)
class TokenScores:
    """What likelihood, memorization and membership metrics read of one (prompt, answer) pair.

    All fields are on the CPU. The last token is the end token where the answers were encoded with one.

    Args:
        log_probs: [T] float32, log-probability of each answer token given all before it, nats, each <= 0.
        vocabulary_mean: [T] float32, sum_v p_v log p_v at each position; minus the entropy, nats, each <= 0.
        vocabulary_deviation: [T] float32, standard deviation of log p_v under p at each position, >= 0.
        is_argmax: [T] bool, whether the answer token is the most likely one.

    Raises:
        ValueError: the fields differ in length, or there is no token.
    """

    log_probs: Tensor
    vocabulary_mean: Tensor
    vocabulary_deviation: Tensor
    is_argmax: Tensor

    def __post_init__(self) -> None:
        shapes = {tuple(field.shape) for field in vars(self).values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1 or shapes == {(0,)}:
            raise ValueError(f"expected four fields of one shape [T] with T >= 1, got {sorted(shapes)}")

    @classmethod
    def from_rows(cls, rows: Tensor) -> Self:
        """Returns the scores of one answer from its rows [4, T] of `score_rows`, on the CPU."""
        return cls(rows[0], rows[1], rows[2], rows[3].bool())

    def __len__(self) -> int:
        return len(self.log_probs)

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood per token, nats, last token included; what training minimises."""
        return -float(self.log_probs.double().mean())

    def without_last(self) -> Self:
        """Returns the scores without the last token; a single token is kept."""
        kept = slice(max(1, len(self) - 1))
        return type(self)(*(field[kept] for field in vars(self).values()))


@torch.no_grad()
def score_tokens(
    logits: Tensor, targets: Tensor, lengths: Sequence[int], chunk_tokens: int = CHUNK_TOKENS
) -> list[TokenScores]:
    """Returns the scores of several answers from the logits that predict their tokens.

    Args:
        logits: [N, V] of any float type, only the positions that predict an answer token, answers in
            sequence.
        targets: [N] int64, the answers' tokens.
        lengths: number of tokens of each answer, each >= 1, with sum N.
        chunk_tokens: rows converted to float32 at once, >= 1; it changes memory, not values.

    Raises:
        ValueError: the lengths do not sum up to N, or one of them is 0.

    Example:
        >>> scores = score_tokens(torch.zeros(3, 4), torch.tensor([0, 1, 2]), [1, 2])
        >>> [len(answer) for answer in scores], round(scores[1].loss, 4)
        ([1, 2], 1.3863)
    """
    if min(lengths, default=0) < 1 or sum(lengths) != len(targets):
        raise ValueError(f"expected lengths >= 1 that sum up to {len(targets)} tokens, got {list(lengths)}")
    chunks = zip(torch.split(logits, chunk_tokens), torch.split(targets, chunk_tokens), strict=True)
    rows = torch.cat([score_rows(*chunk) for chunk in chunks], dim=1).cpu()
    return [TokenScores.from_rows(part) for part in torch.split(rows, list(lengths), dim=1)]


def score_rows(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns the four fields of `TokenScores` in their order, [4, N] float32 on the device of the logits.

    Logits [N, V] of any float type predict the targets [N], int64.
    """
    likely = logits.float().log_softmax(-1)
    chosen = likely.gather(1, targets[:, None]).squeeze(1)
    is_argmax = likely.argmax(-1) == targets
    shares = likely.exp()
    finite = likely.masked_fill(shares == 0, 0.0)  # a banned token has -inf, and 0 * -inf is NaN
    mean = (shares * finite).sum(-1)
    variance = (shares * (finite - mean[:, None]).square()).sum(-1)
    return torch.stack([chosen, mean, variance.sqrt(), is_argmax.float()])
