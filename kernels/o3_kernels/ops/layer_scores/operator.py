"""The public calls `layer_scores` and `pool_tokens`: checks, device choice, registration with torch."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from o3_kernels.checks import check_devices, check_floating, check_shape, runs_on_triton
from o3_kernels.ops.layer_scores.statistics import RequestStatistics, check_statistics
from o3_kernels.ops.layer_scores.vectorised import layer_scores_vectorised, pool_tokens_vectorised
from o3_kernels.sums import sum_type

__all__ = ["LayerScores", "layer_scores", "pool_tokens"]

HIDDEN_STATE_AXES = 4  # [L,B,T,D]
SCHEMA = (
    "(Tensor features, Tensor? means, Tensor precision_scale, Tensor whitening, Tensor bank,"
    " Tensor? bank_mask, Tensor maha_weights, Tensor cosine_weights, int whitening_sign)"
    " -> (Tensor, Tensor, Tensor)"
)


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
    means: Tensor | None,
    precision_scale: Tensor,
    whitening: Tensor,
    bank: Tensor,
    bank_mask: Tensor | None,
    maha_weights: Tensor,
    cosine_weights: Tensor,
    *,
    whitening_sign: int = -1,
    token_mask: Tensor | None = None,
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
        features: [B,L,D] pooled features, float16, bfloat16, float32 or float64, any scale; or [L,B,T,D]
            hidden states, which `pool_tokens` pools first.
        means: [K,L,D]; None where features are centred already (c = x), so that requests share them.
        precision_scale: [K,L], not negative.
        whitening: [K,L,R,D]; R may be 0; rows of zeros pad smaller requests. It and the bank are fastest on a
            CPU with the requests of a layer side by side in memory: `t.transpose(0, 1)` contiguous.
        bank: [K,L,M,D], rows of length 1; M may be 0.
        bank_mask: [K,M] of bool, False where a bank row is padding; None where every row counts. A row of
            zeros that is not masked counts with cosine 0.
        maha_weights: [K,L], 1 / squared distance; negative where a far row shall score low.
        cosine_weights: [K,L], usually positive. The published score, lower close to the forget set, is
            maha_weights = -0.5 with cosine_weights = -1000.
        whitening_sign: -1 or 1, see above.
        token_mask: [B,T] of bool or numbers, 0 where a token does not count; only with hidden states. None
            counts every token, as the published code does.

    Returns:
        `LayerScores` in float32, or in float64 where the features are.

    Raises:
        ValueError: shapes do not fit, tensors are on several devices, whitening_sign is neither -1 nor 1, or
            a token_mask comes with pooled features.
        TypeError: a tensor does not hold floating-point numbers, or bank_mask does not hold bool.

    Example:
        >>> unit = torch.eye(2)[None, None]
        >>> scores = layer_scores(torch.tensor([[[3.0, 4.0]]]), torch.zeros(1, 1, 2), torch.ones(1, 1),
        ...                       0.5 * unit, unit, None, -torch.ones(1, 1), torch.ones(1, 1))
        >>> [round(value.item(), 4) for value in scores]
        [18.75, 0.8, -17.95]
    """
    if features.dim() == HIDDEN_STATE_AXES:
        features = pool_tokens(features, token_mask)
    elif token_mask is not None:
        raise ValueError("token_mask needs hidden states [L,B,T,D], but pooled features came")
    check_shape("features", features, (None, None, None), "[B,L,D] or [L,B,T,D]")
    statistics = RequestStatistics(
        means, precision_scale, whitening, bank, bank_mask, maha_weights, cosine_weights, whitening_sign
    )
    check_statistics(features, statistics)
    if features.device.type == "cpu" and not torch.compiler.is_compiling():
        # a registered operator takes its toll for every tensor: a quarter of the time of one row's scores
        with torch.no_grad():
            return LayerScores(*layer_scores_vectorised(features, statistics))
    return LayerScores(*_layer_scores(features, *statistics))


def pool_tokens(hidden_states: Tensor, token_mask: Tensor | None) -> Tensor:
    """Returns the mean hidden state of each row's counted tokens at each layer, in one pass.

    Each counted token is read once, the others never, and nothing but the result is written. No gradient.

    Args:
        hidden_states: [L,B,T,D], any strides, float16, bfloat16, float32 or float64.
        token_mask: [B,T] of bool or numbers, 0 where a token does not count; None counts all.

    Returns:
        [B,L,D] in float32, or in float64 where the hidden states are; zeros for a row without tokens.

    Raises:
        ValueError: shapes do not fit, or devices differ.
        TypeError: the hidden states are not floating-point numbers.

    Example:
        >>> states = torch.tensor([[1.0], [3.0], [8.0]])[None, None]
        >>> pool_tokens(states, torch.tensor([[1, 1, 0]])).item()
        2.0
    """
    check_shape("hidden_states", hidden_states, (None, None, None, None), "[L,B,T,D]")
    check_floating(hidden_states=hidden_states)
    if token_mask is not None:
        check_shape("token_mask", token_mask, hidden_states.shape[1:3], "[B,T]")
        check_devices([hidden_states, token_mask])
        token_mask = token_mask != 0
    pooled: Tensor = _pool_tokens(hidden_states, token_mask)
    return pooled


@torch.library.custom_op("o3_kernels::pool_tokens", mutates_args=())
def _pool_tokens(hidden_states: Tensor, token_mask: Tensor | None) -> Tensor:
    return pool_tokens_vectorised(hidden_states, token_mask)


@_pool_tokens.register_fake
def _pool_tokens_fake(hidden_states: Tensor, token_mask: Tensor | None) -> Tensor:
    L, B, _, D = hidden_states.shape
    return hidden_states.new_empty((B, L, D), dtype=sum_type(hidden_states))


@_pool_tokens.register_kernel("cuda")
def _pool_tokens_cuda(hidden_states: Tensor, token_mask: Tensor | None) -> Tensor:
    if not runs_on_triton([hidden_states]):
        return pool_tokens_vectorised(hidden_states, token_mask)
    from o3_kernels.ops.layer_scores.launch import launch_pool_tokens

    return launch_pool_tokens(hidden_states, token_mask)


@torch.library.custom_op("o3_kernels::layer_scores", mutates_args=(), schema=SCHEMA)
def _layer_scores(features: Tensor, *statistics: Any) -> tuple[Tensor, Tensor, Tensor]:
    return layer_scores_vectorised(features, RequestStatistics(*statistics))


@_layer_scores.register_fake
def _layer_scores_fake(features: Tensor, *statistics: Any) -> tuple[Tensor, Tensor, Tensor]:
    (B, L, _), K = features.shape, len(statistics[1])
    dtype, empty = sum_type(features), features.new_empty
    return empty(K, B, L, dtype=dtype), empty(K, B, L, dtype=dtype), empty(K, B, dtype=dtype)


@_layer_scores.register_kernel("cuda")
def _layer_scores_cuda(features: Tensor, *statistics: Any) -> tuple[Tensor, Tensor, Tensor]:
    named = RequestStatistics(*statistics)
    if not runs_on_triton([features, *named.tensors]):
        return layer_scores_vectorised(features, named)
    from o3_kernels.ops.layer_scores.launch import launch_layer_scores

    return launch_layer_scores(features, named)
