"""Launches the Triton kernels of `layer_scores`: three launches for any numbers of rows and requests."""

from typing import NamedTuple

import torch
from torch import Tensor

from o3_kernels.blocks import SMALLEST_BLOCK, count_blocks, device_of, launches_early, power_of_two
from o3_kernels.halves import are_halves
from o3_kernels.ops.layer_scores.statistics import SMALLEST_DISTANCE, TILE_AXES, RequestStatistics
from o3_kernels.ops.layer_scores.triton_kernel import (
    layer_scores_combine_kernel,
    layer_scores_rows_kernel,
    layer_scores_tiles_kernel,
)
from o3_kernels.tuning import chosen_plan


class LayerScoresPlan(NamedTuple):
    """Block sizes: batch rows, tile rows and columns; number of warps and pipeline stages."""

    block_b: int
    block_n: int
    block_d: int
    warps: int
    stages: int


def plan_layer_scores(rows: int, tile_rows: int, width: int, splits: int) -> LayerScoresPlan:
    """Returns block sizes for B rows, tiles of max(R, M) rows and width D.

    Tiles are as large as the registers and shared memory of a Hopper multiprocessor allow without spilling;
    `splits` is 1 if they are split into halves in the loop, which takes registers.
    """
    block_b = power_of_two(rows, SMALLEST_BLOCK, 64)
    block_n = power_of_two(tile_rows, SMALLEST_BLOCK, 64 if splits else 128)
    block_d = power_of_two(width, SMALLEST_BLOCK, 64)
    return LayerScoresPlan(block_b, block_n, block_d, warps=4, stages=3 if block_b < 64 else 2)


def launch_layer_scores(
    features: Tensor, statistics: RequestStatistics, plan: LayerScoresPlan | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the results of `layer_scores_reference`; `plan` overrides the default block sizes."""
    with device_of(features):
        return _launch(features.contiguous(), statistics, plan)


def _launch(
    features: Tensor, statistics: RequestStatistics, plan: LayerScoresPlan | None
) -> tuple[Tensor, Tensor, Tensor]:
    means, precision_scale, whitening, bank, bank_mask, *weights, sign, whiten = statistics
    (B, L, D), K, (R, M) = features.shape, len(precision_scale), (whitening.shape[-2], bank.shape[-2])
    mahalanobis = features.new_empty((K, B, L), dtype=torch.float32)
    cosine = torch.empty_like(mahalanobis)
    aggregate = features.new_empty((K, B), dtype=torch.float64)
    if not mahalanobis.numel():
        return mahalanobis, cosine, aggregate.zero_()
    whitening, bank = _rows_side_by_side(whitening), _rows_side_by_side(bank)
    splits = any(tiles.dtype != torch.bfloat16 for tiles in (whitening, bank))
    sizes = (B, max(R, M), D, int(splits))
    plan = plan or chosen_plan("layer_scores", plan_layer_scores, sizes, bank.device, (K, L))
    bank_tiles = count_blocks(M, plan.block_n)
    tiles = bank_tiles + max(count_blocks(R, plan.block_n), 1)
    partial = features.new_empty((K, B, L, tiles), dtype=torch.float32)
    mask = bank if bank_mask is None else bank_mask.contiguous().view(torch.int8)
    row_blocks = count_blocks(B, plan.block_b)
    halves = features.new_empty((2, B, L, D), dtype=torch.bfloat16)
    squares = features.new_empty((B, L), dtype=torch.float32)
    early = launches_early(features)
    block_d = power_of_two(D, SMALLEST_BLOCK, 1024)
    layer_scores_rows_kernel[(B * L,)](
        features, halves, squares, D, B * L * D, BLOCK_D=block_d, WAITS=bool(early)
    )
    layer_scores_tiles_kernel[(row_blocks * K * L, tiles)](
        features,
        halves,
        squares,
        features if means is None else means.contiguous(),
        precision_scale.contiguous(),
        whitening,
        bank,
        mask,
        partial,
        B * L * D,
        *_strides(whitening),
        *_strides(bank),
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
        WHITENING_HALVES=are_halves(whitening, TILE_AXES),
        BANK_HALVES=are_halves(bank, TILE_AXES),
        BLOCK_B=plan.block_b,
        BLOCK_N=plan.block_n,
        BLOCK_D=plan.block_d,
        EVEN=D % plan.block_d == 0,
        WAITS=bool(early),
        num_warps=plan.warps,
        num_stages=plan.stages,
        **early,
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
        WAITS=bool(early),
        num_warps=1,
        **early,
    )
    return mahalanobis, cosine, aggregate


def _rows_side_by_side(tiles: Tensor) -> Tensor:
    """Returns tiles [...,N,D] with contiguous rows; halves, requests and layers may have any strides."""
    N, D = tiles.shape[-2:]
    dense = tiles.stride(-1) == 1 and (tiles.stride(-2) == D or N <= 1)
    return tiles if dense else tiles.contiguous()


def _strides(tiles: Tensor) -> tuple[int, int, int]:
    """Returns the strides of the halves (0 for whole numbers), requests and layers."""
    plane, *rest = tiles.stride() if are_halves(tiles, TILE_AXES) else (0, *tiles.stride())
    return plane, rest[0], rest[1]
