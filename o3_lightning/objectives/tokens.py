"""Sums and means over labelled tokens: the parts that most objectives share.

Shapes: B rows, T tokens, V vocabulary. Logits at a token predict the label one place later.
"""

from __future__ import annotations

import torch
from torch import Tensor

from o3_lightning.objectives.reductions import IGNORED, mean_of_tokens

__all__ = ["IGNORED", "log_probabilities", "mean_nll", "row_nll", "shift", "token_nll"]


def shift(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns logits, labels and the mask of labelled tokens, brought into line.

    Args:
        logits: [B, T, V].
        labels: [B, T], -100 where there is none.

    Returns:
        [B, T-1, V] in float32 at least, [B, T-1] with 0 where there is no label, [B, T-1] bool.
    """
    kept = logits[:, :-1]
    kept = kept if kept.dtype == torch.float64 else kept.float()
    targets = labels[:, 1:]
    mask = targets != IGNORED
    return kept, targets.masked_fill(~mask, 0), mask


def log_probabilities(logits: Tensor) -> Tensor:
    """Returns log-softmax over the vocabulary, in float32 at least."""
    return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)


def token_nll(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns each token's negative log-likelihood [B, T-1], 0 where unlabelled, and the mask [B, T-1]."""
    kept, targets, mask = shift(logits, labels)
    nll = -kept.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return nll.masked_fill(~mask, 0), mask


def mean_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean negative log-likelihood over all labelled tokens of a batch, a scalar.

    Example:
        >>> round(mean_nll(torch.zeros(1, 3, 4), torch.tensor([[-100, 2, 1]])).item(), 4)  # log 4
        1.3863
    """
    return mean_of_tokens(token_nll(logits, labels)[0], labels)


def row_nll(logits: Tensor, labels: Tensor, *, per_token: bool = False) -> Tensor:
    """Returns the summed (or mean) negative log-likelihood of each row's answer, [B]."""
    nll, mask = token_nll(logits, labels)
    return nll.sum(-1) / mask.sum(-1).clamp(min=1) if per_token else nll.sum(-1)
