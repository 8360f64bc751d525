"""The public call `layer_scores`: checks, choice of implementation, registration with torch."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from o3_kernels.blocks import sum_type
from o3_kernels.checks import check_shape, runs_on_triton
from o3_kernels.ops.layer_scores.statistics import RequestStatistics, check_statistics
from o3_kernels.ops.layer_scores.vectorised import layer_scores_vectorised

SCHEMA = (
    "(Tensor features, Tensor? means, Tensor precision_scale, Tensor whitening, Tensor bank,"
    " Tensor? bank_mask, Tensor maha_weights, Tensor cosine_weights, int whitening_sign, bool whiten_cosine)"
    " -> (Tensor, Tensor, Tensor)"
)


class LayerScores(NamedTuple):
    """Scores of B rows under K requests.

    Args:
        mahalanobis: [K,B,L], squared Mahalanobis distance to the mean of the request.
        cosine: [K,B,L], largest cosine to a bank row, or -1 without bank rows; optionally whitened.
        aggregate: [K,B], weighted sum of both over the layers, float64.
    """

    mahalanobis: Tensor
    cosine: Tensor
    aggregate: Tensor


def layer_scores(
    features: Tensor,
    means: Tensor | None,
    precision_scale: Tensor,
    whitening: Tensor,
    bank: Tensor,
    bank_mask: Tensor | None,
    maha_weights: Tensor,
    cosine_weights: Tensor,
    *,
    whitening_sign: int = -1,
    whiten_cosine: bool = False,
) -> LayerScores:
    """Returns the distance, cosine and weighted score of every row for every request, in one pass.

    With x the features of a row at a layer, c = x - mean, and U the whitening of a request at that layer:
    mahalanobis = precision_scale * ||c||^2 + whitening_sign * ||U c||^2, cosine = max_m <x, bank_m> / ||x||,
    aggregate = sum over layers of maha_weights * mahalanobis + cosine_weights * cosine, the score of a
    detector; its two parts are used to fit and explain it.

    A shrunk covariance V diag(l) V^T + s I of rank R has the precision (1/s) I - U^T U with
    U = diag(sqrt(l / (s (l + s)))) V^T, so no D x D matrix is needed: precision_scale = 1/s and
    whitening_sign = -1. For a plain precision P use U = P^(1/2), precision_scale = 0, whitening_sign = 1.
    The call has no gradient.

    Args:
        features: [B,L,D] pooled features, float16, bfloat16, float32 or float64, any scale.
        means: [K,L,D]; None for features that are already centred (c = x).
        precision_scale: [K,L], not negative.
        whitening: [K,L,R,D]; R may be 0; rows of zeros are padding. On a CPU it and the bank are fastest if
            the requests of a layer are adjacent in memory: `t.transpose(0, 1)` is contiguous. On a GPU both
            are fastest as `split_halves`, [2,K,L,R,D] in bfloat16, made once per fit.
        bank: [K,L,M,D], rows of length 1; M may be 0.
        bank_mask: [K,M] of bool, False for padding; None if there is none. A row of zeros that is not masked
            has cosine 0.
        maha_weights: [K,L], 1 / squared distance; negative if distant rows are to score low.
        cosine_weights: [K,L], usually positive. The published score, which is lower close to the forget set,
            has maha_weights = -0.5 and cosine_weights = -1000.
        whitening_sign: -1 or 1, see above.
        whiten_cosine: divide each cosine by sqrt(mahalanobis). For features of length 1 and bank rows
            P c / sqrt(c^T P c), with precision P, this is the cosine to c under P.

    Returns:
        `LayerScores` in float32, or in float64 if the features are; `aggregate` always in float64, because
        callers subtract a constant of similar size. On a GPU numbers enter products with 16 significant bits,
        so that a result is within 1e-5 of the largest one.

    Raises:
        ValueError: shapes do not match, devices differ, or whitening_sign is neither -1 nor 1.
        TypeError: a tensor is not floating-point, or bank_mask is not bool.

    Example:
        >>> unit = torch.eye(2)[None, None]
        >>> scores = layer_scores(torch.tensor([[[3.0, 4.0]]]), torch.zeros(1, 1, 2), torch.ones(1, 1),
        ...                       0.5 * unit, unit, None, -torch.ones(1, 1), torch.ones(1, 1))
        >>> [round(value.item(), 4) for value in scores]
        [18.75, 0.8, -17.95]
    """
    check_shape("features", features, (None, None, None), "[B,L,D]")
    statistics = RequestStatistics(
        means,
        precision_scale,
        whitening,
        bank,
        bank_mask,
        maha_weights,
        cosine_weights,
        whitening_sign,
        whiten_cosine,
    )
    check_statistics(features, statistics)
    if not torch.compiler.is_compiling():
        # a registered operator has an overhead per tensor: a quarter of the time for a single row
        with torch.no_grad():
            return LayerScores(*_on_device(features, statistics))
    return LayerScores(*_layer_scores(features, *statistics))


def _on_device(features: Tensor, statistics: RequestStatistics) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the scores with Triton if possible."""
    numbers = [tensor for tensor in statistics[:5] if isinstance(tensor, Tensor)]  # weights may be float64
    if features.device.type != "cuda" or not runs_on_triton([features, *numbers]):
        return layer_scores_vectorised(features, statistics)
    from o3_kernels.ops.layer_scores.launch import launch_layer_scores

    return launch_layer_scores(features, statistics)


@torch.library.custom_op("o3_kernels::layer_scores", mutates_args=(), schema=SCHEMA)
def _layer_scores(features: Tensor, *statistics: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _on_device(features, RequestStatistics(*statistics))


@_layer_scores.register_fake
def _layer_scores_fake(features: Tensor, *statistics: Any) -> tuple[Tensor, Tensor, Tensor]:
    (B, L, _), K = features.shape, len(statistics[1])
    dtype, empty = sum_type(features), features.new_empty
    return empty(K, B, L, dtype=dtype), empty(K, B, L, dtype=dtype), empty(K, B, dtype=torch.float64)
