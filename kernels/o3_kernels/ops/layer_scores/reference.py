"""Definition of `layer_scores`, one request and layer at a time; tests compare with it."""

import torch
from torch import Tensor

from o3_kernels.ops.layer_scores.statistics import SMALLEST_DISTANCE, RequestStatistics


def layer_scores_reference(features: Tensor, statistics: RequestStatistics) -> tuple[Tensor, Tensor, Tensor]:
    """Returns squared Mahalanobis distances [K,B,L], maximum cosines [K,B,L] and their weighted sum [K,B].

    Arguments as in `o3_kernels.layer_scores`; the sum is float64, the rest has the dtype of the features.
    """
    means, scale, whitening, bank, bank_mask, maha_weights, cosine_weights, sign, whiten_cosine = statistics
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
    if whiten_cosine:
        cosine = cosine / mahalanobis.clamp_min(SMALLEST_DISTANCE).sqrt()
    maha_weights, cosine_weights = maha_weights[:, None].double(), cosine_weights[:, None].double()
    aggregate = (maha_weights * mahalanobis + cosine_weights * cosine).sum(2)
    return mahalanobis, cosine, aggregate
