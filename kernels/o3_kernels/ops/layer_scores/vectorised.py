"""`layer_scores` in a fixed number of PyTorch calls, whatever the number of rows, layers and requests."""

import torch
from torch import Tensor

__all__ = ["layer_scores_vectorised"]

# L layers, K requests, B rows, D width, R whitening rows, M bank rows


def layer_scores_vectorised(
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
    """Returns what `layer_scores_reference` returns; half precision is computed in float32."""
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    x_LBD = features.to(dtype).transpose(0, 1)
    centred_KLBD = x_LBD - means.to(dtype).unsqueeze(2)
    mahalanobis_KLB = precision_scale.to(dtype).unsqueeze(2) * centred_KLBD.square().sum(3)
    if whitening.shape[2]:
        whitened_KLBR = centred_KLBD @ whitening.to(dtype).transpose(2, 3)
        mahalanobis_KLB = mahalanobis_KLB + whitening_sign * whitened_KLBR.square().sum(3)
    cosine_KLB = torch.full_like(mahalanobis_KLB, -1)
    if bank.shape[2]:
        similarity_KLBM = torch.nn.functional.normalize(x_LBD, dim=2) @ bank.to(dtype).transpose(2, 3)
        if bank_mask is not None:
            similarity_KLBM.masked_fill_(~bank_mask[:, None, None, :], -1)
        cosine_KLB = similarity_KLBM.amax(3)
    weighted = maha_weights.to(dtype).unsqueeze(2) * mahalanobis_KLB
    aggregate_KB = (weighted + cosine_weights.to(dtype).unsqueeze(2) * cosine_KLB).sum(1)
    return mahalanobis_KLB.transpose(1, 2).contiguous(), cosine_KLB.transpose(1, 2).contiguous(), aggregate_KB
