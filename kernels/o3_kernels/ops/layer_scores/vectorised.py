"""`layer_scores` in a few PyTorch calls a layer, whatever the number of rows."""

import torch
from torch import Tensor

from o3_kernels.ops.layer_scores.statistics import RequestStatistics

__all__ = ["layer_scores_vectorised", "pool_tokens_vectorised"]

BLOCK_NUMBERS = 1 << 19  # of an intermediate result: 2 MiB of float32, about a core's own cache

# L layers, K requests, B rows, T tokens, D width, R whitening rows, M bank rows


def pool_tokens_vectorised(hidden_states: Tensor, token_mask: Tensor | None) -> Tensor:
    """Returns what `pool_tokens_reference` returns; half precision is computed in float32.

    One gathered mean for all rows and layers: tokens that do not count are never read.
    """
    states_LBTD = hidden_states.to(_sum_type(hidden_states))
    if token_mask is None:
        return states_LBTD.sum(2).div_(max(states_LBTD.shape[2], 1)).transpose(0, 1).contiguous()
    L, B, T, D = states_LBTD.shape
    counts_LBT = token_mask.expand(L, B, T)
    places = counts_LBT.flatten().nonzero().squeeze(1)
    ends_LB = counts_LBT.sum(2).flatten().cumsum(0)
    starts_LB = torch.nn.functional.pad(ends_LB[:-1], (1, 0)) if L * B else ends_LB
    table = states_LBTD.reshape(L * B * T, D)
    pooled_LBD = torch.nn.functional.embedding_bag(places, table, starts_LB, mode="mean")
    return pooled_LBD.view(L, B, D).transpose(0, 1).contiguous()


def layer_scores_vectorised(features: Tensor, statistics: RequestStatistics) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what `layer_scores_reference` returns; half precision is computed in float32.

    Layer by layer and a block of requests at a time: the rows are then multiplied as they are, without a copy
    for every request, and what lies between two calls stays in the processor's cache.
    """
    dtype = _sum_type(features)
    means, scale, whitening, bank, bank_mask, maha_weights, cosine_weights, sign = statistics
    (B, L, D), K = features.shape, len(means)
    mahalanobis_KBL = features.new_empty((K, B, L), dtype=dtype)
    cosine_KBL = torch.full_like(mahalanobis_KBL, -1)
    widest = max(D, whitening.shape[2], bank.shape[2])
    block = max(1, BLOCK_NUMBERS // max(1, B * widest)) if features.device.type == "cpu" else max(K, 1)
    for layer in range(L):
        x_BD = features[:, layer].to(dtype)
        unit_BD = torch.nn.functional.normalize(x_BD, dim=1)
        for first in range(0, K, block):
            part = slice(first, first + block)
            distances_KB = _distances(
                x_BD, means[part, layer].to(dtype), scale[part, layer].to(dtype),
                whitening[part, layer].to(dtype), sign,
            )  # fmt: skip
            mahalanobis_KBL[part, :, layer] = distances_KB
            if bank.shape[2]:
                similarity_KBM = unit_BD @ bank[part, layer].to(dtype).transpose(1, 2)
                if bank_mask is not None:
                    similarity_KBM.masked_fill_(~bank_mask[part, None, :], -1)
                cosine_KBL[part, :, layer] = similarity_KBM.amax(2)
    weighted = maha_weights.to(dtype).unsqueeze(1) * mahalanobis_KBL
    aggregate_KB = (weighted + cosine_weights.to(dtype).unsqueeze(1) * cosine_KBL).sum(2)
    return mahalanobis_KBL, cosine_KBL, aggregate_KB


def _distances(x_BD: Tensor, means_KD: Tensor, scale_K: Tensor, whitening_KRD: Tensor, sign: int) -> Tensor:
    """Returns the squared distances [K,B] at one layer; requests centred at zero share the rows."""
    centred = x_BD - means_KD.unsqueeze(1) if means_KD.any() else x_BD
    distances_KB = scale_K.unsqueeze(1) * centred.square().sum(-1)
    if whitening_KRD.shape[1]:
        whitened_KBR = centred @ whitening_KRD.transpose(1, 2)
        distances_KB = distances_KB + sign * torch.linalg.vector_norm(whitened_KBR, dim=2).square()
    return distances_KB


def _sum_type(tensor: Tensor) -> torch.dtype:
    """Sums are taken in float32 at least."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
