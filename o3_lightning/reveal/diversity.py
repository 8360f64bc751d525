"""Diversity of texts: the Vendi score, and the contribution of new texts to it.

Shapes: N texts, D width of their embeddings.
"""

import torch
from torch import Tensor

SMALLEST = 1e-12  # smaller eigenvalues count as zero


def vendi(kernel: Tensor) -> float:
    """Returns the Vendi score, the effective number of different items, in [1, N]; 0 without items.

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
    """Returns the similarity of rows of prompt and answer, [N, N].

    It is the cosine of the answers, reduced for different prompts: a new phrasing of a fact adds little
    diversity, a new fact adds much.

    Args:
        answers: [N, D] embeddings of the answers.
        prompts: [N, D] embeddings of the prompts.
        phrasing: weight of the cosine of the prompts, in [0, 1]; 0 uses the answers only.
    """
    unit, asked = (torch.nn.functional.normalize(part.double(), dim=1) for part in (answers, prompts))
    return (unit @ unit.T) * ((1 - phrasing) + phrasing * (asked @ asked.T))


def novelty(kernel: Tensor, earlier: int) -> float:
    """Returns the increase of the Vendi score per new row, in [0, 1].

    Args:
        kernel: [N, N] similarities of all rows.
        earlier: number of rows, less than N, that are not new; they come first.

    Example:
        >>> novelty(torch.eye(3), 2), novelty(torch.ones(3, 3), 2)
        (1.0, 0.0)
    """
    gain = vendi(kernel) - vendi(kernel[:earlier, :earlier])
    return min(1.0, max(0.0, gain / (len(kernel) - earlier)))
