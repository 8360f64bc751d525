"""The order of the work items of `orthogonality_penalty`, and the offsets of the results of each module."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from o3_kernels.blocks import count_blocks

__all__ = ["ModuleShape", "PenaltyPlan", "Schedule", "plan_schedule"]

KEPT_SCHEDULES = 16  # training uses one, or two if it penalises both sides


class PenaltyPlan(NamedTuple):
    """Block sizes.

    Args:
        block_r: all ranks of the new adapter.
        block_n: earlier rows of an overlap item.
        block_d: columns read at a time.
        part_d: columns of an overlap item, a multiple of block_d.
        gradient_n: earlier rows of a step of a gradient, a divisor of block_n.
        gradient_d: columns of a gradient item.
        lag_bytes: bytes of history between the overlaps and the gradient of a module: more than all running
            programs read at a time, so that none waits, but less than the cache, which still has the rows.
        warps: of a program.
        stages: of the software pipeline.
    """

    block_r: int
    block_n: int
    block_d: int
    part_d: int
    gradient_n: int
    gradient_d: int
    lag_bytes: int
    warps: int
    stages: int


class ModuleShape(NamedTuple):
    """Rank R of the new adapter, total rows N of the earlier ones, width D, distance of their halves."""

    R: int
    N: int
    D: int
    plane: int = 0


class Schedule(NamedTuple):
    """Work items in order, and the sizes of their results over all modules.

    Args:
        items: [items,3] int32 on the device.
        table: [modules,8] int64 on the device: the shapes and the offsets of each module in overlaps,
            gradient, parts of overlaps and row blocks.
        overlaps: number of elements of the overlaps.
        gradient: number of elements of the gradients.
        parts: number of elements of the parts of overlaps.
        row_blocks: number of row blocks.
    """

    items: Tensor
    table: Tensor
    overlaps: int
    gradient: int
    parts: int
    row_blocks: int


@lru_cache(maxsize=KEPT_SCHEDULES)
def plan_schedule(
    shapes: tuple[ModuleShape, ...],
    plan: PenaltyPlan,
    element_bytes: int,
    need_gradient: bool,
    device: torch.device,
) -> Schedule:
    """Returns the schedule: overlaps module by module, and each gradient `lag_bytes` of history later.

    Overlaps are padded to whole blocks. Cached, because the shapes are the same in every training step.
    """
    table, sizes = [], [0, 0, 0, 0]
    items: list[tuple[int, int, int]] = []
    waiting, read = 0, 0  # next module without a gradient; bytes from its start to the last overlaps
    for module, (R, N, D, plane) in enumerate(shapes):
        row_blocks, parts = count_blocks(N, plan.block_n), count_blocks(D, plan.part_d)
        overlap = row_blocks * plan.block_n * plan.block_r
        table.append((R, N, D, plane, *sizes))
        for place, size in enumerate((overlap, R * D, parts * overlap, row_blocks)):
            sizes[place] += size
        items += [(module, block, part) for block in range(row_blocks) for part in range(parts)]
        read += N * D * element_bytes
        while need_gradient and waiting <= module and (read >= plan.lag_bytes or module == len(shapes) - 1):
            _, rows, width, _ = shapes[waiting]
            items += [(-1 - waiting, block, 0) for block in range(count_blocks(width, plan.gradient_d))]
            read -= rows * width * element_bytes
            waiting += 1
    on_device = torch.tensor(items, dtype=torch.int32, device=device).view(-1, 3)
    return Schedule(on_device, torch.tensor(table, dtype=torch.int64, device=device), *sizes)
