"""`layer_scores` in a few PyTorch calls for any number of rows, layers and requests."""

from collections.abc import Iterator

import torch
from torch import Tensor

from o3_kernels.blocks import sum_type
from o3_kernels.halves import join_halves
from o3_kernels.ops.layer_scores.statistics import SMALLEST_DISTANCE, TILE_AXES, RequestStatistics

BLOCK_NUMBERS = 1 << 19  # of intermediate results: 2 MiB of float32, about the cache of a core

# L layers, K requests, B rows, D width, R whitening rows, M bank rows


def layer_scores_vectorised(features: Tensor, statistics: RequestStatistics) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the results of `layer_scores_reference`; half precision is computed in float32.

    Intermediate results larger than the cache are computed in blocks of some requests at one layer, which
    use the rows without a copy per request.
    """
    dtype = sum_type(features)
    means, scale, whitening, bank, bank_mask, maha_weights, cosine_weights, sign, whiten_cosine = statistics
    whitening, bank = join_halves(whitening, TILE_AXES), join_halves(bank, TILE_AXES)
    (B, L, D), (K, _, R, _), M = features.shape, whitening.shape, bank.shape[2]
    x_LBD = features.to(dtype).transpose(0, 1)
    unit_LBD = torch.nn.functional.normalize(x_LBD, dim=2)
    mahalanobis_KLB = x_LBD.new_empty(K, L, B)
    cosine_KLB = torch.full_like(mahalanobis_KLB, -1)
    widest = 2 * max(R, M) if means is None else max(D, R, M)  # products and squares; or centred rows
    most = BLOCK_NUMBERS // max(1, B * widest) if features.device.type == "cpu" else K * L
    for part in _blocks(K, L, most):
        requests, layers = part
        centred = x_LBD[layers] if means is None else x_LBD[layers] - means[part].to(dtype).unsqueeze(2)
        distances_KLB = scale[part].to(dtype).unsqueeze(2) * centred.square().sum(-1)
        if R:
            whitened_KLBR = _products(centred, whitening[part].to(dtype))
            distances_KLB = distances_KLB + sign * whitened_KLBR.square().sum(3)
        mahalanobis_KLB[part] = distances_KLB
        if M:
            similarity_KLBM = _products(unit_LBD[layers], bank[part].to(dtype))
            if bank_mask is not None:
                similarity_KLBM = similarity_KLBM.masked_fill(~bank_mask[requests, None, None], -1)
            cosine_KLB[part] = similarity_KLBM.amax(3)
    if whiten_cosine:
        cosine_KLB /= mahalanobis_KLB.clamp_min(SMALLEST_DISTANCE).sqrt_()
    weighted_KLB = maha_weights.double().unsqueeze(2) * mahalanobis_KLB
    aggregate_KB = weighted_KLB.addcmul_(cosine_weights.double().unsqueeze(2), cosine_KLB.double()).sum(1)
    return mahalanobis_KLB.transpose(1, 2).contiguous(), cosine_KLB.transpose(1, 2).contiguous(), aggregate_KB


def _blocks(requests: int, layers: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Yields slices of requests and layers: all at once, or at most `most` requests at one layer."""
    if requests * layers <= most:
        yield slice(0, requests), slice(0, layers)
        return
    for layer in range(layers):
        for first in range(0, requests, max(most, 1)):
            yield slice(first, first + max(most, 1)), slice(layer, layer + 1)


def _products(rows: Tensor, tiles_KLND: Tensor) -> Tensor:
    """Returns rows [L,B,D] or [K,L,B,D] times tiles [K,L,N,D], [K,L,B,N]; contiguous tiles are one matrix."""
    K, L, N, D = tiles_KLND.shape
    tiles_LKND = tiles_KLND.transpose(0, 1)
    if rows.dim() < tiles_KLND.dim() and tiles_LKND.is_contiguous():
        products_LBN = rows @ tiles_LKND.view(L, K * N, D).mT
        return products_LBN.view(L, rows.shape[1], K, N).permute(2, 0, 1, 3)
    return rows @ tiles_KLND.mT
