"""The public call `layer_scores`: checks, device choice, and its registration with `torch.library`."""

from typing import NamedTuple

import torch
from torch import Tensor

from o3_kernels.checks import check_devices, check_floating, check_shape, runs_on_triton
from o3_kernels.ops.layer_scores.vectorised import layer_scores_vectorised

__all__ = ["LayerScores", "layer_scores"]


class LayerScores(NamedTuple):
    """Scores of B rows under K requests.

    Args:
        mahalanobis: [K,B,L], squared distance to the request's mean under its precision.
        cosine: [K,B,L], largest cosine to a bank row, -1 where a request has no bank row.
        aggregate: [K,B], weighted sum of both over the layers.
    """

    mahalanobis: Tensor
    cosine: Tensor
    aggregate: Tensor


def layer_scores(
    features: Tensor,
    means: Tensor,
    precision_scale: Tensor,
    whitening: Tensor,
    bank: Tensor,
    bank_mask: Tensor | None,
    maha_weights: Tensor,
    cosine_weights: Tensor,
    *,
    whitening_sign: int = -1,
) -> LayerScores:
    """Returns the distance, the cosine and the weighted score of every row under every request, in one pass.

    With x the features of a row at a layer, c = x - mean, and U the whitening of a request at that layer:
    mahalanobis = precision_scale * ||c||^2 + whitening_sign * ||U c||^2, cosine = max_m <x, bank_m> / ||x||,
    aggregate = sum over layers of maha_weights * mahalanobis + cosine_weights * cosine.

    A shrunk covariance V diag(l) V^T + s I of rank R has the precision (1/s) I - U^T U with
    U = diag(sqrt(l / (s (l + s)))) V^T, so no D x D matrix is needed: precision_scale = 1/s and
    whitening_sign = -1.
    A plain precision P is U = P^(1/2), precision_scale = 0, whitening_sign = 1.
    The call has no gradient: a detector is fitted before it scores.

    Args:
        features: [B,L,D] pooled features, float16, bfloat16, float32 or float64, any scale.
        means: [K,L,D].
        precision_scale: [K,L], not negative.
        whitening: [K,L,R,D]; R may be 0; rows of zeros pad smaller requests.
        bank: [K,L,M,D], rows of length 1; M may be 0.
        bank_mask: [K,M] of bool, False where a bank row is padding; None where every row counts. A row of
            zeros that is not masked counts with cosine 0.
        maha_weights: [K,L], 1 / squared distance; negative where a far row shall score low.
        cosine_weights: [K,L], usually positive. The published score, lower close to the forget set, is
            maha_weights = -0.5 with cosine_weights = -1000.
        whitening_sign: -1 or 1, see above.

    Returns:
        `LayerScores` in float32, or in float64 where the features are.

    Raises:
        ValueError: shapes do not fit, tensors are on several devices, or whitening_sign is neither -1 nor 1.
        TypeError: a tensor does not hold floating-point numbers, or bank_mask does not hold bool.

    Example:
        >>> unit = torch.eye(2)[None, None]
        >>> scores = layer_scores(torch.tensor([[[3.0, 4.0]]]), torch.zeros(1, 1, 2), torch.ones(1, 1),
        ...                       0.5 * unit, unit, None, -torch.ones(1, 1), torch.ones(1, 1))
        >>> [round(value.item(), 4) for value in scores]
        [18.75, 0.8, -17.95]
    """
    named = (features, means, precision_scale, whitening, bank, bank_mask, maha_weights, cosine_weights)
    _check(*named, whitening_sign)
    return LayerScores(*_layer_scores(*named, whitening_sign))


def _check(
    features: Tensor,
    means: Tensor,
    precision_scale: Tensor,
    whitening: Tensor,
    bank: Tensor,
    bank_mask: Tensor | None,
    maha_weights: Tensor,
    cosine_weights: Tensor,
    whitening_sign: int,
) -> None:
    """Refuses what the operation is not defined for."""
    check_shape("features", features, (None, None, None), "[B,L,D]")
    check_shape("means", means, (None, *features.shape[1:]), "[K,L,D]")
    (K, L, D), M = means.shape, bank.shape[2] if bank.dim() == 4 else None
    check_shape("precision_scale", precision_scale, (K, L), "[K,L]")
    check_shape("whitening", whitening, (K, L, None, D), "[K,L,R,D]")
    check_shape("bank", bank, (K, L, None, D), "[K,L,M,D]")
    check_shape("maha_weights", maha_weights, (K, L), "[K,L]")
    check_shape("cosine_weights", cosine_weights, (K, L), "[K,L]")
    check_floating(features=features, means=means, precision_scale=precision_scale, whitening=whitening)
    check_floating(bank=bank, maha_weights=maha_weights, cosine_weights=cosine_weights)
    tensors = [features, means, precision_scale, whitening, bank, maha_weights, cosine_weights]
    if bank_mask is not None:
        check_shape("bank_mask", bank_mask, (K, M), "[K,M]")
        if bank_mask.dtype != torch.bool:
            raise TypeError(f"bank_mask must hold bool, but its dtype is {bank_mask.dtype}")
        tensors.append(bank_mask)
    check_devices(tensors)
    if whitening_sign not in (-1, 1):
        raise ValueError(f"whitening_sign must be -1 or 1, but {whitening_sign} came")


@torch.library.custom_op("o3_kernels::layer_scores", mutates_args=())
def _layer_scores(
    features: Tensor,
    means: Tensor,
    precision_scale: Tensor,
    whitening: Tensor,
    bank: Tensor,
    bank_mask: Tensor | None,
    maha_weights: Tensor,
    cosine_weights: Tensor,
    whitening_sign: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return layer_scores_vectorised(
        features,
        means,
        precision_scale,
        whitening,
        bank,
        bank_mask,
        maha_weights,
        cosine_weights,
        whitening_sign,
    )


@_layer_scores.register_fake
def _layer_scores_fake(
    features: Tensor,
    means: Tensor,
    precision_scale: Tensor,
    whitening: Tensor,
    bank: Tensor,
    bank_mask: Tensor | None,
    maha_weights: Tensor,
    cosine_weights: Tensor,
    whitening_sign: int,
) -> tuple[Tensor, Tensor, Tensor]:
    (B, L, _), K = features.shape, means.shape[0]
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    empty = features.new_empty
    return empty(K, B, L, dtype=dtype), empty(K, B, L, dtype=dtype), empty(K, B, dtype=dtype)


@_layer_scores.register_kernel("cuda")
def _layer_scores_cuda(
    features: Tensor,
    means: Tensor,
    precision_scale: Tensor,
    whitening: Tensor,
    bank: Tensor,
    bank_mask: Tensor | None,
    maha_weights: Tensor,
    cosine_weights: Tensor,
    whitening_sign: int,
) -> tuple[Tensor, Tensor, Tensor]:
    arguments = (features, means, precision_scale, whitening, bank, bank_mask, maha_weights, cosine_weights)
    if not runs_on_triton([tensor for tensor in arguments if tensor is not None]):
        return layer_scores_vectorised(*arguments, whitening_sign)
    from o3_kernels.ops.layer_scores.launch import launch_layer_scores

    return launch_layer_scores(*arguments, whitening_sign)
