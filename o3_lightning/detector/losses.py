"""The training losses of a detector's encoder, as pure functions of features.

Shape letters: N rows, L layers, D width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def contrastive_entropy(
    query: Tensor, key: Tensor, *, temperature: float = 1.0, normalise: bool = False, floor: float = 0.0
) -> Tensor:
    """Returns the sum over layers of the mean entropy of p_ij = softmax_j of query-key products.

    Args:
        query: features of the masked views [N, L, D].
        key: features of the plain prompts by the key encoder [N, L, D]; no gradient flows into them.
        temperature: divides the products; 1 in the official code.
        normalise: whether features are scaled to length 1 first; the official code does not.
        floor: added to a probability before its logarithm; 1e-5 in the official code.

    Returns:
        A scalar, not negative.

    Source:
        O3, equation 6; official `ood_loss.py` takes raw products of mean-pooled features.

    Example:
        >>> contrastive_entropy(torch.zeros(2, 1, 3), torch.zeros(2, 1, 3)).exp().round().item()
        2.0
    """
    key = key.detach()
    if normalise:
        query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
    logits = torch.einsum("ild,jld->lij", query, key) / temperature
    log_probability = F.log_softmax(logits, dim=-1)
    probability = log_probability.exp()
    if floor > 0:
        log_probability = torch.log(probability + floor)
    entropy = -(probability * log_probability).sum(dim=-1)
    return entropy.mean(dim=-1).sum()


def info_nce(query: Tensor, key: Tensor, *, temperature: float) -> Tensor:
    """Returns the symmetric InfoNCE loss of two views, the SimCLR ablation of the paper.

    Args:
        query: features of one view, last layer [N, D].
        key: features of the other view [N, D]; row i of both come from prompt i.
        temperature: positive.
    """
    logits = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).T / temperature
    target = torch.arange(len(query), device=query.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def nt_xent(query: Tensor, key: Tensor, *, temperature: float) -> Tensor:
    """Returns NT-Xent: each of the 2N views has to find its partner among all the others.

    Args:
        query: features of one view [N, D].
        key: features of the other view [N, D]; row i of both come from prompt i.
        temperature: positive.

    Source:
        Chen et al. 2020 (SimCLR), as in the file of that name of O3's code; `info_nce` compares each view
        with those of the other kind alone.
    """
    views = F.normalize(torch.cat([query, key]), dim=-1)
    logits = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(views), device=views.device).roll(len(query))
    return F.cross_entropy(logits, partner)


def entity_swap_loss(
    anchor: Tensor, positive: Tensor, swapped: Tensor, positives: Tensor, *, temperature: float
) -> Tensor:
    """Returns InfoNCE with the same prompts about somebody else as hard negatives.

    Args:
        anchor: features [N, D].
        positive: features of a prompt that shares the anchor's entity [N, D].
        swapped: features of prompts whose entities were exchanged [M, D].
        positives: True where rows i and j of the batch share an entity [N, N]; such pairs are no negatives.
        temperature: positive.
    """
    anchor, positive, swapped = (F.normalize(rows, dim=-1) for rows in (anchor, positive, swapped))
    own = (anchor * positive).sum(dim=-1, keepdim=True) / temperature
    others = (anchor @ positive.T / temperature).masked_fill(positives, -torch.inf)
    hard = anchor @ swapped.T / temperature
    logits = torch.cat([own, others, hard], dim=1)
    return F.cross_entropy(logits, torch.zeros(len(anchor), dtype=torch.int64, device=anchor.device))
