"""Launches the Triton kernels of `layer_scores`: two launches for any number of rows, layers and requests."""

from typing import NamedTuple

import torch
from torch import Tensor

from o3_kernels.blocks import SMALLEST_BLOCK, count_blocks, dot_precision, power_of_two
from o3_kernels.ops.layer_scores.statistics import SMALLEST_DISTANCE, RequestStatistics
from o3_kernels.ops.layer_scores.triton_kernel import (
    layer_scores_combine_kernel,
    layer_scores_tiles_kernel,
)
from o3_kernels.tuning import chosen_plan

__all__ = ["LayerScoresPlan", "launch_layer_scores", "plan_layer_scores"]


class LayerScoresPlan(NamedTuple):
    """Block sizes: batch rows, tile rows and columns; number of warps and pipeline stages."""

    block_b: int
    block_n: int
    block_d: int
    warps: int
    stages: int


def plan_layer_scores(rows: int, tile_rows: int, width: int, element_bytes: int) -> LayerScoresPlan:
    """Returns block sizes for B rows, tiles of max(R, M) rows and width D of elements of the bank.

    A single row does not use tensor cores; many rows share each tile. Tiles are as large as the registers and
    shared memory of a Hopper multiprocessor allow without spilling.
    """
    block_b = 1 if rows == 1 else power_of_two(rows, SMALLEST_BLOCK, 64)
    block_n = power_of_two(tile_rows, SMALLEST_BLOCK, 32 if rows == 1 else 64)
    row_bytes = {1: 512, 64: 128}.get(block_b, 256)
    block_d = power_of_two(width, SMALLEST_BLOCK, row_bytes // element_bytes)
    return LayerScoresPlan(block_b, block_n, block_d, warps=4, stages=3)


def launch_layer_scores(
    features: Tensor, statistics: RequestStatistics, plan: LayerScoresPlan | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the results of `layer_scores_reference`; `plan` overrides the default block sizes."""
    means, precision_scale, whitening, bank, bank_mask, *weights, sign, whiten = statistics
    (B, L, D), (K, _, R, _), M = features.shape, whitening.shape, bank.shape[2]
    mahalanobis = features.new_empty((K, B, L), dtype=torch.float32)
    cosine = torch.empty_like(mahalanobis)
    aggregate = features.new_empty((K, B), dtype=torch.float64)
    if not mahalanobis.numel():
        return mahalanobis, cosine, aggregate.zero_()
    whitening, bank = _rows_side_by_side(whitening), _rows_side_by_side(bank)
    sizes = (B, max(R, M), D, bank.element_size())
    plan = plan or chosen_plan("layer_scores", plan_layer_scores, sizes, bank.device)
    bank_tiles = count_blocks(M, plan.block_n)
    tiles = bank_tiles + max(count_blocks(R, plan.block_n), 1)
    partial = features.new_empty((K, B, L, tiles), dtype=torch.float32)
    mask = bank if bank_mask is None else bank_mask.contiguous().view(torch.int8)
    row_blocks = count_blocks(B, plan.block_b)
    layer_scores_tiles_kernel[(row_blocks * K * L, tiles)](
        features.contiguous(),
        bank if means is None else means.contiguous(),
        precision_scale.contiguous(),
        whitening,
        bank,
        mask,
        partial,
        *whitening.stride()[:2],
        *bank.stride()[:2],
        B,
        L,
        R,
        M,
        D,
        row_blocks,
        float(sign),
        BANK_TILES=bank_tiles,
        TILES=tiles,
        HAS_MEANS=means is not None,
        HAS_MASK=bank_mask is not None,
        USE_DOT=plan.block_b > 1,
        PRECISION=dot_precision(features),
        BLOCK_B=plan.block_b,
        BLOCK_N=plan.block_n,
        BLOCK_D=plan.block_d,
        num_warps=plan.warps,
        num_stages=plan.stages,
    )
    layer_scores_combine_kernel[(K * B,)](
        partial,
        *(tensor.double().contiguous() for tensor in weights),
        mahalanobis,
        cosine,
        aggregate,
        B,
        L,
        SMALLEST_DISTANCE,
        WHITEN_COSINE=whiten,
        BANK_TILES=bank_tiles,
        TILES=tiles,
        BLOCK_L=power_of_two(L, 1, 1 << 16),
        BLOCK_P=power_of_two(tiles, 1, 1 << 16),
        num_warps=1,
    )
    return mahalanobis, cosine, aggregate


def _rows_side_by_side(tiles_KLND: Tensor) -> Tensor:
    """Returns tiles with contiguous rows; requests and layers may have any strides."""
    D = tiles_KLND.shape[3]
    dense = tiles_KLND.stride(3) == 1 and (tiles_KLND.stride(2) == D or tiles_KLND.shape[2] <= 1)
    return tiles_KLND if dense else tiles_KLND.contiguous()
