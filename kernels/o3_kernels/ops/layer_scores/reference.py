"""What `layer_scores` means, one request and one layer at a time: slow, plain, the truth for tests."""

import torch
from torch import Tensor

__all__ = ["layer_scores_reference"]


def layer_scores_reference(
    features: Tensor,
    means: Tensor,
    precision_scale: Tensor,
    whitening: Tensor,
    bank: Tensor,
    bank_mask: Tensor | None,
    maha_weights: Tensor,
    cosine_weights: Tensor,
    whitening_sign: int = -1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns squared Mahalanobis distances [K,B,L], maximum cosines [K,B,L] and their weighted sum [K,B].

    Arguments are those of `o3_kernels.layer_scores`; the results have the dtype of the features.
    """
    B, L, _ = features.shape
    K = means.shape[0]
    mahalanobis = features.new_zeros(K, B, L)
    cosine = features.new_zeros(K, B, L)
    for k in range(K):
        for layer in range(L):
            x = features[:, layer]
            centred = x - means[k, layer]
            whitened = centred @ whitening[k, layer].T
            mahalanobis[k, :, layer] = precision_scale[k, layer] * centred.square().sum(1)
            mahalanobis[k, :, layer] += whitening_sign * whitened.square().sum(1)
            rows = bank[k, layer] if bank_mask is None else bank[k, layer][bank_mask[k]]
            cosines = torch.nn.functional.normalize(x, dim=1) @ rows.T
            cosine[k, :, layer] = cosines.max(1).values if len(rows) else -1
    aggregate = (maha_weights[:, None] * mahalanobis + cosine_weights[:, None] * cosine).sum(2)
    return mahalanobis, cosine, aggregate
