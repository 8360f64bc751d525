"""What `layer_scores` means, one request and one layer at a time: slow, plain, the truth for tests."""

import torch
from torch import Tensor

from o3_kernels.ops.layer_scores.statistics import RequestStatistics

__all__ = ["layer_scores_reference", "pool_tokens_reference"]


def pool_tokens_reference(hidden_states: Tensor, token_mask: Tensor | None) -> Tensor:
    """Returns the mean of the hidden states [L,B,T,D] over each row's counted tokens, [B,L,D]."""
    L, B, _, D = hidden_states.shape
    pooled = hidden_states.new_zeros(B, L, D)
    for row in range(B):
        states = hidden_states[:, row] if token_mask is None else hidden_states[:, row, token_mask[row]]
        if states.shape[1]:
            pooled[row] = states.mean(1)
    return pooled


def layer_scores_reference(
    features: Tensor, statistics: RequestStatistics, token_mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns squared Mahalanobis distances [K,B,L], maximum cosines [K,B,L] and their weighted sum [K,B].

    Arguments are those of `o3_kernels.layer_scores`; the results have the dtype of the features.
    """
    if features.dim() == 4:
        features = pool_tokens_reference(features, token_mask)
    means, scale, whitening, bank, bank_mask, maha_weights, cosine_weights, sign = statistics
    B, L, _ = features.shape
    K = len(scale)
    mahalanobis = features.new_zeros(K, B, L)
    cosine = features.new_zeros(K, B, L)
    for k in range(K):
        for layer in range(L):
            x = features[:, layer]
            centred = x if means is None else x - means[k, layer]
            whitened = centred @ whitening[k, layer].T
            mahalanobis[k, :, layer] = scale[k, layer] * centred.square().sum(1)
            mahalanobis[k, :, layer] += sign * whitened.square().sum(1)
            rows = bank[k, layer] if bank_mask is None else bank[k, layer][bank_mask[k]]
            cosines = torch.nn.functional.normalize(x, dim=1) @ rows.T
            cosine[k, :, layer] = cosines.max(1).values if len(rows) else -1
    aggregate = (maha_weights[:, None] * mahalanobis + cosine_weights[:, None] * cosine).sum(2)
    return mahalanobis, cosine, aggregate
