"""How many different things a set of texts says: the Vendi score, and what an answer adds to it.

Shapes: N texts, D width of their embeddings.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["novelty", "text_kernel", "vendi"]

SMALLEST = 1e-12  # eigenvalues below count as zero


def vendi(kernel: Tensor) -> float:
    """Returns the Vendi score, the effective number of different items, in [1, N]; 0 of none.

    Args:
        kernel: [N, N] similarities, symmetric, positive semi-definite, ones on the diagonal.

    Source:
        Friedman and Dieng 2023: exp(-sum of l log l) over the eigenvalues l of kernel / N.

    Example:
        >>> vendi(torch.eye(3)), vendi(torch.ones(3, 3))
        (3.0, 1.0)
    """
    if not len(kernel):
        return 0.0
    values = torch.linalg.eigvalsh(kernel.double() / len(kernel))
    values = values[values > SMALLEST]
    return round(float((-(values * values.log()).sum()).exp()), 9)


def text_kernel(answers: Tensor, prompts: Tensor, phrasing: float) -> Tensor:
    """Returns how alike rows of prompt and answer are, [N, N].

    The cosine of the answers, lowered where the same is said to another prompt: a fact asked in a new way
    adds a little, a new fact adds much.

    Args:
        answers: [N, D] embeddings of the answers.
        prompts: [N, D] embeddings of the prompts.
        phrasing: part of the prompts' cosine, in [0, 1]; 0 looks at the answers alone.
    """
    unit, asked = (torch.nn.functional.normalize(part.double(), dim=1) for part in (answers, prompts))
    return (unit @ unit.T) * ((1 - phrasing) + phrasing * (asked @ asked.T))


def novelty(kernel: Tensor, earlier: int) -> float:
    """Returns how much the last rows of a set add to its Vendi score, per row, in [0, 1].

    Args:
        kernel: [N, N] over all rows.
        earlier: how many rows were there before; fewer than N.

    Example:
        >>> novelty(torch.eye(3), 2), novelty(torch.ones(3, 3), 2)
        (1.0, 0.0)
    """
    added = len(kernel) - earlier
    gain = vendi(kernel) - vendi(kernel[:earlier, :earlier])
    return min(1.0, max(0.0, gain / added))
