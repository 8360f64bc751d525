"""Launches the Triton kernel of `orthogonality_penalty`, once for any number of modules and requests."""

from collections.abc import Sequence
from functools import lru_cache

import torch
import triton.language as tl
from torch import Tensor

from o3_kernels.blocks import device_of, power_of_two, processors
from o3_kernels.halves import are_halves
from o3_kernels.ops.orthogonality_penalty.schedule import ModuleShape, PenaltyPlan, Schedule, plan_schedule
from o3_kernels.ops.orthogonality_penalty.triton_kernel import orthogonality_penalty_kernel
from o3_kernels.ops.orthogonality_penalty.vectorised import (
    HISTORY_AXES,
    are_transposed,
    orthogonality_penalty_vectorised,
)
from o3_kernels.tuning import chosen_plan

ELEMENT_TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
MAX_RANK = 64  # a tile contains all ranks of the new adapter; PyTorch computes larger ones
MOST_NUMBERS = 1 << 31  # of the history of a module, addressed by int32
FEWEST_OVERLAPS = 16  # whose roundings to halves average out; PyTorch computes fewer in float32
NARROW_RANK, WIDE_RANK = 8, 32  # above them fewer programs run at a time; above the second tiles are smaller
ALIGNMENT = 16  # of addresses in bytes and of widths in elements, which allows vectorised loads
ITEM_BYTES = 1 << 18  # of an overlap item: long enough to hide its latency, short enough to balance the load
WHOLE_BYTES = 1 << 25  # larger modules do not stay in the cache for their second pass
CHUNK_BYTES = 1 << 24  # of larger ones: two chunks stay, and adding a gradient up costs a quarter of a pass
LAG_BYTES = 1 << 23  # between the overlaps and the gradient of a module, beside what running programs read
KEPT_TABLES = 16  # training uses one, or two if it penalises both sides
_recorded: dict[int, Schedule] = {}  # read by CUDA graphs in every replay; one for each set of shapes


def plan_penalty(rank: int, rows: int, width: int, splits: int, element_bytes: int = 4) -> PenaltyPlan:
    """Returns block sizes for the largest rank, number of earlier rows and width of the modules.

    Tiles are as large as the registers and shared memory of a Hopper multiprocessor allow without spilling;
    `splits` is 1 if the history is split into halves in the loop, which takes registers.
    """
    wide, cut = rank > WIDE_RANK, rows * width * element_bytes > WHOLE_BYTES
    block_n = power_of_two(rows, 16, 64 if wide or splits else 128)
    block_d = power_of_two(width, 16, 32 if wide else 64)
    return PenaltyPlan(
        block_r=power_of_two(rank, 8, MAX_RANK),
        block_n=block_n,
        block_d=block_d,
        part_d=max(power_of_two(width, 16, ITEM_BYTES // (block_n * element_bytes)), block_d),
        gradient_n=min(block_n, 32 if wide or splits else 64),
        gradient_d=power_of_two(width, 16, 128),
        lag_bytes=CHUNK_BYTES if cut else LAG_BYTES,
        warps=8 if wide else 4,
        stages=2,
        programs=1 if wide else 2 if splits or rank > NARROW_RANK else 3,
        chunk_bytes=CHUNK_BYTES - 1 if cut else 0,  # less than the lag: its gradient follows the next chunk
    )


def launch_orthogonality_penalty(
    new: Sequence[Tensor], old: Sequence[Tensor], need_gradient: bool, plan: PenaltyPlan | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the results of `orthogonality_penalty_vectorised`; `plan` overrides the default block sizes.

    A CUDA graph may record a call, with new addresses too, after one call with the same shapes.
    """
    halves = [are_halves(tensor, HISTORY_AXES) for tensor in old]
    shapes = tuple(
        ModuleShape(
            new_m.shape[0], old_m.shape[-3] * old_m.shape[-2], new_m.shape[1], old_m.stride(0) if half else 0
        )
        for new_m, old_m, half in zip(new, old, halves, strict=True)
    )
    rank = max(shape.R for shape in shapes)
    one_kind = len({*zip((tensor.dtype for tensor in old), halves, strict=True)}) == 1
    few = max(R * N for R, N, _, _ in shapes) < FEWEST_OVERLAPS
    if not one_kind or few or rank > MAX_RANK or max(N * D for _, N, D, _ in shapes) >= MOST_NUMBERS:
        return orthogonality_penalty_vectorised(new, old, need_gradient)
    with device_of(new[0]):
        return _launch(new, [_dense(old_m) for old_m in old], shapes, need_gradient, plan)


def _launch(
    new: Sequence[Tensor],
    old: Sequence[Tensor],
    shapes: tuple[ModuleShape, ...],
    need_gradient: bool,
    plan: PenaltyPlan | None,
) -> tuple[Tensor, Tensor]:
    halves, device = are_halves(old[0], HISTORY_AXES), new[0].device
    rank, rows, width, _ = (max(sizes) for sizes in zip(*shapes, strict=True))
    element_bytes = 4 if halves else old[0].element_size()
    sizes = (rank, rows, width, int(old[0].dtype != torch.bfloat16), element_bytes)
    plan = plan or chosen_plan("orthogonality_penalty", plan_penalty, sizes, device)
    transposed = are_transposed(new)
    new = new if transposed else [tensor.contiguous() for tensor in new]
    schedule = plan_schedule(shapes, plan, element_bytes, need_gradient, device)
    starts = [tensor.data_ptr() for both in zip(new, old, strict=True) for tensor in both]
    if chunked := len(schedule.chunks) > len(new):
        steps = [shape.D * old_m.element_size() for shape, old_m in zip(shapes, old, strict=True)]
        starts = [
            start
            for module, row in schedule.chunks
            for start in (starts[2 * module], starts[2 * module + 1] + row * steps[module])
        ]
    addresses = tuple(starts)
    capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    if capturing:
        _recorded[id(schedule)] = schedule
    numbers = [*addresses, *(size for shape in shapes for size in shape[2:])]
    empty = new[0].new_empty
    gradient = empty(schedule.gradient if need_gradient else 0, dtype=torch.float32)
    squares = empty(schedule.row_blocks, dtype=torch.float32)
    if not len(schedule.items):
        return squares.sum(), gradient
    grid = min(len(schedule.items), plan.programs * processors(new[0]))
    orthogonality_penalty_kernel[(grid,)](
        write_addresses(addresses, device) if capturing else _kept_addresses(addresses, device),
        schedule.table,
        schedule.items,
        torch.zeros(1 + 2 * len(schedule.chunks) + schedule.row_blocks, dtype=torch.int32, device=device),
        empty(schedule.parts, dtype=torch.float32),
        empty(2 * schedule.overlaps, dtype=torch.bfloat16),
        squares,
        gradient,
        len(schedule.items),
        len(schedule.chunks),
        NEW=ELEMENT_TYPES[new[0].dtype],
        OLD=ELEMENT_TYPES[old[0].dtype],
        HALVES=halves,
        TRANSPOSED=transposed,
        CHUNKED=chunked,
        ALIGNED=all(number % ALIGNMENT == 0 for number in numbers),
        EVEN=all(shape.D % max(plan.block_d, plan.gradient_d) == 0 for shape in shapes),
        BLOCK_R=plan.block_r,
        BLOCK_N=plan.block_n,
        BLOCK_D=plan.block_d,
        PART_D=plan.part_d,
        GRADIENT_N=plan.gradient_n,
        GRADIENT_D=plan.gradient_d,
        num_warps=plan.warps,
        num_stages=plan.stages,
    )
    return squares.sum(), gradient


def _dense(old_m: Tensor) -> Tensor:
    """Returns earlier adapters with contiguous rows; halves may be at any distance."""
    whole = old_m[0] if are_halves(old_m, HISTORY_AXES) else old_m
    return old_m if whole.is_contiguous() else old_m.contiguous()


def write_addresses(addresses: Sequence[int], device: torch.device) -> Tensor:
    """Returns numbers as int64 on the device, without a copy from the host, which a CUDA graph cannot record.

    The numbers are arguments of the kernels that add them, and thus a part of the graph.
    """
    numbers = torch.zeros(len(addresses), dtype=torch.int64, device=device)
    torch._foreach_add_(list(numbers.unbind()), list(addresses))
    return numbers


_kept_addresses = lru_cache(maxsize=KEPT_TABLES)(write_addresses)
