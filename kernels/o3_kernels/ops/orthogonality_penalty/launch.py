"""Launches the Triton kernel of `orthogonality_penalty`, once for any number of modules and requests."""

from collections.abc import Sequence
from functools import lru_cache

import torch
import triton.language as tl
from torch import Tensor

from o3_kernels.blocks import dot_precision, power_of_two
from o3_kernels.ops.orthogonality_penalty.schedule import ModuleShape, PenaltyPlan, plan_schedule
from o3_kernels.ops.orthogonality_penalty.triton_kernel import orthogonality_penalty_kernel
from o3_kernels.ops.orthogonality_penalty.vectorised import orthogonality_penalty_vectorised
from o3_kernels.tuning import chosen_plan

__all__ = ["launch_orthogonality_penalty", "plan_penalty"]

ELEMENT_TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
MAX_RANK = 256  # a tile contains all ranks of the new adapter
ALIGNMENT = 16  # of addresses in bytes and of widths in elements, which allows vectorised loads
ITEM_BYTES = 1 << 16  # of an overlap item: long enough to hide its latency, short enough to balance the load
LAG_BYTES = 1 << 24  # some hundred items run at a time, half of them overlaps; a third of Hopper's cache
KEPT_TABLES = 16  # training uses one, or two if it penalises both sides
_recorded: list[Tensor] = []  # tensors that CUDA graphs read in every replay, which must outlive the caches

Addresses = tuple[tuple[int, int], ...]  # of the new and the earlier adapters of each module


def plan_penalty(rank: int, rows: int, width: int, element_bytes: int) -> PenaltyPlan:
    """Returns block sizes for the largest rank, number of earlier rows and width of the modules.

    Tiles are as large as the registers of a Hopper multiprocessor allow without spilling at rank 32.
    """
    block_n = power_of_two(rows, 16, 32)
    block_d = power_of_two(width, 16, 64 if element_bytes == 4 else 256)
    return PenaltyPlan(
        block_r=power_of_two(rank, 16, MAX_RANK),
        block_n=block_n,
        block_d=block_d,
        part_d=max(power_of_two(width, 16, ITEM_BYTES // (block_n * element_bytes)), block_d),
        gradient_d=power_of_two(width, 16, 512 // element_bytes),
        lag_bytes=LAG_BYTES,
        warps=4,
        stages=3,
    )


def launch_orthogonality_penalty(
    new: Sequence[Tensor], old: Sequence[Tensor], need_gradient: bool, plan: PenaltyPlan | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the results of `orthogonality_penalty_vectorised`; `plan` overrides the default block sizes."""
    shapes = tuple(
        ModuleShape(new_m.shape[0], old_m.shape[0] * old_m.shape[1], new_m.shape[1])
        for new_m, old_m in zip(new, old, strict=True)
    )
    rank, rows, width = (max(sizes) for sizes in zip(*shapes, strict=True))
    if len({tensor.dtype for tensor in old}) > 1 or rank > MAX_RANK:  # a launch supports a single dtype
        return orthogonality_penalty_vectorised(new, old, need_gradient)
    new, old = [tensor.contiguous() for tensor in new], [tensor.contiguous() for tensor in old]
    sizes = (rank, rows, width, old[0].element_size())
    plan = plan or chosen_plan("orthogonality_penalty", plan_penalty, sizes, new[0].device)
    device, empty = new[0].device, new[0].new_empty
    schedule = plan_schedule(shapes, plan, old[0].element_size(), need_gradient, device)
    gradient = empty(schedule.gradient if need_gradient else 0)
    squares = empty(schedule.row_blocks, dtype=torch.float32)
    if not len(schedule.items):
        return squares.sum(), gradient
    addresses = tuple((new_m.data_ptr(), old_m.data_ptr()) for new_m, old_m in zip(new, old, strict=True))
    table = _address_table(addresses, shapes, schedule.starts, device)
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        _recorded.extend((table, schedule.items))
    orthogonality_penalty_kernel[(len(schedule.items),)](
        table,
        schedule.items,
        torch.zeros(1 + len(new) + schedule.row_blocks, dtype=torch.int32, device=device),
        empty(schedule.parts, dtype=torch.float32),
        empty(schedule.overlaps, dtype=torch.float32),
        squares,
        gradient,
        len(new),
        NEW=ELEMENT_TYPES[new[0].dtype],
        OLD=ELEMENT_TYPES[old[0].dtype],
        ALIGNED=_aligned(addresses, shapes),
        PRECISION=dot_precision(new[0]),
        BLOCK_R=plan.block_r,
        BLOCK_N=plan.block_n,
        BLOCK_D=plan.block_d,
        PART_D=plan.part_d,
        GRADIENT_D=plan.gradient_d,
        num_warps=plan.warps,
        num_stages=plan.stages,
    )
    return squares.sum(), gradient


@lru_cache(maxsize=KEPT_TABLES)
def _address_table(
    addresses: Addresses,
    shapes: tuple[ModuleShape, ...],
    starts: tuple[tuple[int, int, int, int], ...],
    device: torch.device,
) -> Tensor:
    """Returns the table of the kernel on the device, cached for the next training step."""
    rows = [(*both, *shape, *start) for both, shape, start in zip(addresses, shapes, starts, strict=True)]
    return torch.tensor(rows, dtype=torch.int64, device=device)


def _aligned(addresses: Addresses, shapes: tuple[ModuleShape, ...]) -> bool:
    """Whether the alignment of every row of every module allows vectorised loads."""
    numbers = [*(address for both in addresses for address in both), *(shape.D for shape in shapes)]
    return all(number % ALIGNMENT == 0 for number in numbers)
