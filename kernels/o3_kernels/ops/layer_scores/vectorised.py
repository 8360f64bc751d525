"""`layer_scores` in a fixed number of PyTorch calls, whatever the number of rows, layers and requests."""

import torch
from torch import Tensor

from o3_kernels.ops.layer_scores.statistics import RequestStatistics

__all__ = ["layer_scores_vectorised", "pool_tokens_vectorised"]

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
    """Returns what `layer_scores_reference` returns; half precision is computed in float32."""
    dtype = _sum_type(features)
    means, scale, whitening, bank, bank_mask, maha_weights, cosine_weights, sign = statistics
    x_LBD = features.to(dtype).transpose(0, 1)
    centred_KLBD = x_LBD - means.to(dtype).unsqueeze(2)
    mahalanobis_KLB = scale.to(dtype).unsqueeze(2) * centred_KLBD.square().sum(3)
    if whitening.shape[2]:
        whitened_KLBR = centred_KLBD @ whitening.to(dtype).transpose(2, 3)
        mahalanobis_KLB = mahalanobis_KLB + sign * whitened_KLBR.square().sum(3)
    cosine_KLB = torch.full_like(mahalanobis_KLB, -1)
    if bank.shape[2]:
        similarity_KLBM = torch.nn.functional.normalize(x_LBD, dim=2) @ bank.to(dtype).transpose(2, 3)
        if bank_mask is not None:
            similarity_KLBM.masked_fill_(~bank_mask[:, None, None, :], -1)
        cosine_KLB = similarity_KLBM.amax(3)
    weighted = maha_weights.to(dtype).unsqueeze(2) * mahalanobis_KLB
    aggregate_KB = (weighted + cosine_weights.to(dtype).unsqueeze(2) * cosine_KLB).sum(1)
    return mahalanobis_KLB.transpose(1, 2).contiguous(), cosine_KLB.transpose(1, 2).contiguous(), aggregate_KB


def _sum_type(tensor: Tensor) -> torch.dtype:
    """Sums are taken in float32 at least."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
