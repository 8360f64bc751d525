"""Launches the Triton kernels of `layer_scores`: two launches for any number of rows, layers and requests."""

from typing import NamedTuple

import torch
from torch import Tensor

from o3_kernels.blocks import count_blocks, dot_precision, power_of_two
from o3_kernels.ops.layer_scores.statistics import SMALLEST_DISTANCE, RequestStatistics
from o3_kernels.ops.layer_scores.triton_kernel import (
    layer_scores_combine_kernel,
    layer_scores_tiles_kernel,
)
from o3_kernels.tuning import Changes, chosen_plan

__all__ = [
    "CHANGES",
    "LayerScoresPlan",
    "launch_layer_scores",
    "plan_layer_scores",
]

# worth timing beside the rule's plan
CHANGES: tuple[Changes, ...] = (
    {"block_n": 2.0},
    {"block_n": 0.5},
    {"block_d": 2.0},
    {"block_d": 0.5},
    {"stages": 2},
    {"stages": 4},
    {"warps": 8},
    {"block_n": 2.0, "warps": 8},
    {"block_b": 2.0, "block_n": 2.0, "warps": 8},
)
MATRIX_UNIT_ROWS = 16  # the smallest side of a tile that the matrix units take


class LayerScoresPlan(NamedTuple):
    """Block sizes: rows of a batch, rows of a tile, columns read at a time; warps and stages of a program."""

    block_b: int
    block_n: int
    block_d: int
    warps: int
    stages: int


def plan_layer_scores(rows: int, tile_rows: int, width: int, element_bytes: int) -> LayerScoresPlan:
    """Returns block sizes: one row needs no matrix unit; many rows share each tile that is read.

    Tiles are as wide as registers and shared memory of one Hopper processor allow without spilling.

    Args:
        rows: B.
        tile_rows: the larger of R and M.
        width: D.
        element_bytes: bytes of one number of the bank.
    """
    block_b = 1 if rows == 1 else power_of_two(rows, MATRIX_UNIT_ROWS, 64)
    block_n = power_of_two(tile_rows, MATRIX_UNIT_ROWS, 32 if rows == 1 else 64)
    row_bytes = {1: 512, 64: 128}.get(block_b, 256)
    block_d = power_of_two(width, MATRIX_UNIT_ROWS, row_bytes // element_bytes)
    return LayerScoresPlan(block_b, block_n, block_d, warps=4, stages=3)


def launch_layer_scores(
    features: Tensor, statistics: RequestStatistics, plan: LayerScoresPlan | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what `layer_scores_reference` returns, its sum in float64; `plan` replaces the usual blocks."""
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
    """Returns tiles whose rows lie side by side; requests and layers may lie in any order."""
    D = tiles_KLND.shape[3]
    dense = tiles_KLND.stride(3) == 1 and (tiles_KLND.stride(2) == D or tiles_KLND.shape[2] <= 1)
    return tiles_KLND if dense else tiles_KLND.contiguous()
