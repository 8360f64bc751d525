"""Launches the Triton kernels of `orthogonality_penalty`: the same few launches for any number of modules."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from o3_kernels.blocks import count_blocks, dot_precision, power_of_two
from o3_kernels.ops.orthogonality_penalty.triton_kernel import (
    TABLE_COLUMNS,
    orthogonality_penalty_bwd_kernel,
    orthogonality_penalty_fwd_kernel,
)
from o3_kernels.ops.orthogonality_penalty.vectorised import orthogonality_penalty_vectorised

__all__ = ["PenaltyPlan", "launch_orthogonality_penalty", "plan_penalty"]

ELEMENT_TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
MAX_RANK = 256  # all ranks of the new adapter lie in one tile
ALIGNMENT = 16  # bytes of an address and numbers of a width that let the device read whole vectors


class PenaltyPlan(NamedTuple):
    """Block sizes: ranks; rows and columns of the forward launch; rows and columns of the backward one."""

    block_r: int
    forward_n: int
    forward_d: int
    backward_n: int
    backward_d: int
    warps: int
    stages: int


def plan_penalty(rank: int, rows: int, width: int, element_bytes: int) -> PenaltyPlan:
    """Returns block sizes for the largest rank, number of earlier rows and width of the modules.

    Tiles are as wide as the registers of one Hopper processor allow without spilling at rank 32.
    """
    return PenaltyPlan(
        block_r=power_of_two(rank, 16, MAX_RANK),
        forward_n=power_of_two(rows, 16, 32),
        forward_d=power_of_two(width, 16, 64 if element_bytes == 4 else 256),
        backward_n=power_of_two(rows, 16, 32),
        backward_d=power_of_two(width, 16, 512 // element_bytes),
        warps=4,
        stages=3,
    )


def launch_orthogonality_penalty(
    new: Sequence[Tensor], old: Sequence[Tensor], need_gradient: bool, plan: PenaltyPlan | None = None
) -> tuple[Tensor, Tensor]:
    """Returns what `orthogonality_penalty_vectorised` returns; `plan` replaces the usual block sizes."""
    rank, width = max(tensor.shape[0] for tensor in new), max(tensor.shape[1] for tensor in new)
    if len({tensor.dtype for tensor in old}) > 1 or rank > MAX_RANK:  # one launch reads one type
        return orthogonality_penalty_vectorised(new, old, need_gradient)
    new, old = [tensor.contiguous() for tensor in new], [tensor.contiguous() for tensor in old]
    rows = max(tensor.shape[0] * tensor.shape[1] for tensor in old)
    plan = plan or plan_penalty(rank, rows, width, old[0].element_size())
    table, overlap_size, gradient_size = _address_table(new, old)
    empty, modules, row_blocks = new[0].new_empty, len(new), max(count_blocks(rows, plan.forward_n), 1)
    overlaps = empty(overlap_size, dtype=torch.float32)
    partial = empty((modules, row_blocks), dtype=torch.float32)
    gradient = empty(gradient_size if need_gradient else 0)
    shared = {
        "OLD": ELEMENT_TYPES[old[0].dtype],
        "ALIGNED": _aligned(new, old),
        "PRECISION": dot_precision(new[0]),
        "BLOCK_R": plan.block_r,
        "num_warps": plan.warps,
        "num_stages": plan.stages,
    }
    orthogonality_penalty_fwd_kernel[(row_blocks, modules)](
        table,
        overlaps,
        partial,
        row_blocks,
        NEW=ELEMENT_TYPES[new[0].dtype],
        BLOCK_N=plan.forward_n,
        BLOCK_D=plan.forward_d,
        **shared,
    )
    if gradient.numel():
        orthogonality_penalty_bwd_kernel[(count_blocks(width, plan.backward_d), modules)](
            table, overlaps, gradient, BLOCK_N=plan.backward_n, BLOCK_D=plan.backward_d, **shared
        )
    return partial.sum(), gradient


def _address_table(new: Sequence[Tensor], old: Sequence[Tensor]) -> tuple[Tensor, int, int]:
    """Returns the kernels' table on the device, the number of overlaps and the size of the gradient."""
    rows, overlap_size, gradient_size = [], 0, 0
    for new_m, old_m in zip(new, old, strict=True):
        (R, D), N = new_m.shape, old_m.shape[0] * old_m.shape[1]
        rows.append((new_m.data_ptr(), old_m.data_ptr(), R, N, D, overlap_size, gradient_size))
        overlap_size += N * R
        gradient_size += R * D
    on_gpu = new[0].is_cuda
    table = torch.tensor(rows, dtype=torch.int64, pin_memory=on_gpu).view(-1, TABLE_COLUMNS)
    return table.to(new[0].device, non_blocking=True), overlap_size, gradient_size


def _aligned(new: Sequence[Tensor], old: Sequence[Tensor]) -> bool:
    """Tells whether every row of every module starts where the device can read whole vectors."""
    tensors = [*new, *old]
    return all(t.shape[-1] % ALIGNMENT == 0 and t.data_ptr() % ALIGNMENT == 0 for t in tensors)
