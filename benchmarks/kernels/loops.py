"""The loops that the published code runs, written from its description, and the best eager PyTorch.

The published gate holds one weight for a whole model, so it scores one prompt at a time, one request after
the other, one layer after the other, with a full D x D precision. Its penalty takes one product for each
module and each earlier adapter. Its adapters are applied one request after the other.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def layer_scores_loop(features: Tensor, means: Tensor, precision: Tensor, bank: Tensor) -> Tensor:
    """Returns -1000 max cos - 0.5 Mahalanobis, summed over layers, [K,B]; loops over requests and layers."""
    K, L = means.shape[:2]
    scores = features.new_zeros(K, len(features))
    for k in range(K):
        for layer in range(L):
            x = features[:, layer]
            centred = x - means[k, layer]
            cosine = (torch.nn.functional.normalize(x, dim=1) @ bank[k, layer].T).max(1).values
            distance = ((centred @ precision[k, layer]) * centred).sum(1)
            scores[k] += -1000 * cosine - 0.5 * distance
    return scores


def layer_scores_official(features: Tensor, means: Tensor, precision: Tensor, bank: Tensor) -> Tensor:
    """Returns the same one row at a time, as a gate for batches of one has to."""
    rows = [layer_scores_loop(row[None], means, precision, bank) for row in features]
    return torch.cat(rows, 1)


def layer_scores_eager(features: Tensor, means: Tensor, whitening: Tensor, bank: Tensor) -> Tensor:
    """Returns the same from one batched product each, with U of the precision U^T U."""
    x_LBD = features.transpose(0, 1)
    distance_KLB = ((x_LBD - means.unsqueeze(2)) @ whitening.mT).square().sum(3)
    cosine_KLB = (torch.nn.functional.normalize(x_LBD, dim=2) @ bank.mT).amax(3)
    return (-1000 * cosine_KLB - 0.5 * distance_KLB).sum(1)


def whitened_cosines_eager(x: Tensor, scale: Tensor, whitening: Tensor, bank: Tensor) -> Tensor:
    """Returns the largest cosine to a bank row under the precision scale I - U^T U, mean of layers, [K,B]."""
    x_LBD = x.transpose(0, 1)
    distance_KLB = scale[..., None] * x_LBD.square().sum(2) - (x_LBD @ whitening.mT).square().sum(3)
    return ((x_LBD @ bank.mT).amax(3) / distance_KLB.sqrt()).mean(1)


def penalty_official(new: Sequence[Tensor], old: Sequence[Tensor]) -> Tensor:
    """Returns the penalty from one product for each module and each earlier adapter."""
    total = new[0].new_zeros(())
    for new_m, old_m in zip(new, old, strict=True):
        for old_mp in old_m:
            total = total + torch.pow(torch.mm(old_mp, new_m.T), 2).sum()
    return total


def penalty_eager(new: Sequence[Tensor], groups: Sequence[tuple[list[int], Tensor]]) -> Tensor:
    """Returns the penalty from one batched product for each width; groups hold modules and [m,P*R,D]."""
    parts = [
        (old_mND @ torch.stack([new[module] for module in modules]).mT).square().sum()
        for modules, old_mND in groups
    ]
    return torch.stack(parts).sum()


def gated_lora_official(y: Tensor, x: Tensor, a: Tensor, b: Tensor, weights: Tensor, rank: int) -> Tensor:
    """Returns the gated output, one row and one request after the other."""
    rows = []
    for row in range(len(x)):
        out = y[row]
        for start in range(0, len(a), rank):
            part = slice(start, start + rank)
            out = out + weights[row, start] * ((x[row] @ a[part].T) @ b[:, part].T)
        rows.append(out)
    return torch.stack(rows)
