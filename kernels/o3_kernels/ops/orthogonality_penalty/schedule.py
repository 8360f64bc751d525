"""The order of the work items of `orthogonality_penalty`, and the offsets of the results of each module."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from o3_kernels.blocks import count_blocks

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
        programs: running on a multiprocessor at a time, as many as its registers and shared memory hold.
        chunk_bytes: of the rows of a larger module that are processed at once; 0 processes modules as wholes.
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
    programs: int
    chunk_bytes: int = 0


class ModuleShape(NamedTuple):
    """Rank R of the new adapter, total rows N of the earlier ones, width D, distance of their halves."""

    R: int
    N: int
    D: int
    plane: int = 0


class Chunk(NamedTuple):
    """Some earlier rows of a module: all of them, unless it is cut; the gradients of chunks are added up."""

    module: int
    first_row: int


class Schedule(NamedTuple):
    """Work items in order, and the sizes of their results over all chunks.

    Args:
        items: [items,3] int32 on the device.
        table: [chunks,9] int64 on the device: the shapes and the offsets of each chunk in overlaps, gradient,
            parts of overlaps and row blocks, and the chunk before it of the same module, or -1.
        chunks: the chunks in the order of the table.
        overlaps: number of elements of the overlaps.
        gradient: number of elements of the gradients.
        parts: number of elements of the parts of overlaps.
        row_blocks: number of row blocks.
    """

    items: Tensor
    table: Tensor
    chunks: tuple[Chunk, ...]
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
    """Returns the schedule: overlaps chunk by chunk, and each gradient `lag_bytes` of history later.

    Overlaps are padded to whole blocks. Cached, because the shapes are the same in every training step.
    """
    table: list[tuple[int, ...]] = []
    chunks: list[Chunk] = []
    sizes = [0, 0, 0, 0]
    items: list[tuple[int, int, int]] = []
    for module, (R, N, D, plane) in enumerate(shapes):
        step = _chunk_rows(N, D * element_bytes, plan)
        for first in range(0, max(N, 1), step):
            rows = min(step, N - first)
            row_blocks, parts = count_blocks(rows, plan.block_n), count_blocks(D, plan.part_d)
            overlap = row_blocks * plan.block_n * plan.block_r
            table.append((R, rows, D, plane, *sizes, len(table) - 1 if first else -1))
            chunks.append(Chunk(module, first))
            gradient = R * D if first + step >= N else 0  # the chunks of a module share its gradient
            for place, size in enumerate((overlap, gradient, parts * overlap, row_blocks)):
                sizes[place] += size
    waiting, read = 0, 0  # next chunk without a gradient; bytes from its start to the last overlaps
    for chunk, (_, rows, D, *_) in enumerate(table):
        blocks = range(count_blocks(rows, plan.block_n))
        items += [(chunk, block, part) for block in blocks for part in range(count_blocks(D, plan.part_d))]
        read += rows * D * element_bytes
        while need_gradient and waiting <= chunk and (read >= plan.lag_bytes or chunk == len(table) - 1):
            _, done, width, *_ = table[waiting]
            items += [(-1 - waiting, block, 0) for block in range(count_blocks(width, plan.gradient_d))]
            read -= done * width * element_bytes
            waiting += 1
    on_device = torch.tensor(items, dtype=torch.int32, device=device).view(-1, 3)
    on_device_table = torch.tensor(table, dtype=torch.int64, device=device)
    return Schedule(on_device, on_device_table, tuple(chunks), *sizes)


def _chunk_rows(rows: int, row_bytes: int, plan: PenaltyPlan) -> int:
    """Returns the rows of a chunk, whole blocks; all rows (at least 1) of a module that is not cut."""
    if not plan.chunk_bytes or rows * row_bytes <= plan.chunk_bytes:
        return max(rows, 1)
    return max(plan.chunk_bytes // row_bytes // plan.block_n, 1) * plan.block_n
