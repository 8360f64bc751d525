"""Log-likelihoods of labelled tokens and their means: the parts that most objectives share.

Shapes: B rows, T tokens, V vocabulary. Logits at a token predict the label one place later.
"""

import torch
from torch import Tensor

from o3_lightning.data.encoding import IGNORED
from o3_lightning.objectives.batch_views import View


def to_float32(values: Tensor) -> Tensor:
    """Returns logits or states in float32, or in float64 if they are given so."""
    return values if values.dtype == torch.float64 else values.float()


def shift(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns logits [B, T-1, V], labels and the mask of labelled tokens [B, T-1], aligned with each other.

    Logits are in float32 at least; labels are 0 where there is none (-100 before).
    """
    targets = labels[:, 1:]
    mask = targets != IGNORED
    return to_float32(logits[:, :-1]), targets.masked_fill(~mask, 0), mask


def token_nll(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns each token's negative log-likelihood [B, T-1], 0 where unlabelled, and the mask [B, T-1]."""
    kept, targets, mask = shift(logits, labels)
    nll = -kept.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return nll.masked_fill(~mask, 0), mask


def row_nll(logits: Tensor, labels: Tensor, *, per_token: bool = False) -> Tensor:
    """Returns the summed (or mean) negative log-likelihood of each row's answer, [B]."""
    nll, mask = token_nll(logits, labels)
    return nll.sum(-1) / mask.sum(-1).clamp(min=1) if per_token else nll.sum(-1)


def mean_nll(view: View) -> Tensor:
    """Returns the mean negative log-likelihood over all labelled tokens of a view, a scalar.

    Example:
        >>> view = View(torch.zeros(1, 3, 4), torch.tensor([[-100, 2, 1]]))
        >>> round(mean_nll(view).item(), 4)  # log 4
        1.3863
    """
    return mean_of_tokens(token_nll(view.logits, view.labels)[0], view)


def mean_of_tokens(values: Tensor, view: View) -> Tensor:
    """Returns the mean over the labelled tokens of the whole step (see `View.counts`), 0 if there are none.

    Args:
        values: [B, N], of the last N <= T tokens of each row.
        view: whose labels say which tokens count.
    """
    mask = view.labels[:, view.labels.shape[1] - values.shape[1] :] != IGNORED
    divisor = mask.sum().clamp(min=1) if view.counts is None else view.counts[0]
    return values.masked_fill(~mask, 0).sum() / divisor


def mean_of_rows(values: Tensor, view: View) -> Tensor:
    """Returns the mean of values [B] over the labelled rows of the whole step (see `View.counts`)."""
    present = (view.labels != IGNORED).any(-1)
    divisor = present.sum().clamp(min=1) if view.counts is None else view.counts[1]
    return values.masked_fill(~present, 0).sum() / divisor


def count_labels(labels: Tensor) -> Tensor:
    """Returns how many tokens of labels [B, T] are labelled and how many rows have any, [2] int64."""
    labelled = labels != IGNORED
    return torch.stack([labelled.sum(), labelled.any(-1).sum()])
