"""Triton kernel of `orthogonality_penalty`: value and gradient of all modules in one launch.

R rank of the new adapter, N rows of all earlier adapters of a module, D width.

Memory traffic. The gradient of a module needs its complete overlap, so two launches would read the history
twice from memory: 2 N D elements per module, where the minimum is N D + 2 R D. Here both are items of one
list: first the overlaps of a module, then its gradient some megabytes of other modules later, when the
overlaps are finished and the rows are still in the L2 cache. Each earlier adapter is then read from memory
once, as long as the rows of a module fit into the cache (N D elements; 50 MB on an H200: 64 requests of rank
32 at width 4096 take 17 MB in bfloat16 and 34 MB in float32).

Progress. A program takes the next item by ticket and waits only for items with lower tickets, which running
programs have already taken; so there is no deadlock, in whatever order the device starts the programs.

Determinism. Sums have a fixed order, so the results are bitwise reproducible.
"""

# Triton reads the arguments of a kernel itself: they have no Python types.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import triton
import triton.language as tl

__all__ = ["orthogonality_penalty_kernel"]

MOST_TURNS = tl.constexpr(1 << 24)  # seconds of waiting, after which the result is NaN


@triton.jit
def _overlap_item(
    row,
    parts_of_overlaps,
    overlaps,
    squares,
    ready,
    arrived,
    block,
    part,
    NEW: tl.constexpr,
    OLD: tl.constexpr,
    ALIGNED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PART_D: tl.constexpr,
):
    """Computes the overlap of some earlier rows over a part of the width; the last part adds up all parts."""
    new = tl.load(row).to(tl.pointer_type(NEW))
    old = tl.load(row + 1).to(tl.pointer_type(OLD))
    R, N, D = tl.load(row + 2), tl.load(row + 3), tl.load(row + 4)
    if ALIGNED:
        new, old, D = tl.multiple_of(new, 16), tl.multiple_of(old, 16), tl.multiple_of(D, 16)
    rows_N = block * BLOCK_N + tl.arange(0, BLOCK_N)
    ranks_R = tl.arange(0, BLOCK_R)
    overlap_NR = tl.zeros([BLOCK_N, BLOCK_R], dtype=tl.float32)
    for start in range(part * PART_D, tl.minimum((part + 1) * PART_D, D), BLOCK_D):
        cols_D = start + tl.arange(0, BLOCK_D)
        old_ND = tl.load(
            old + rows_N[:, None] * D + cols_D[None, :],
            mask=(rows_N[:, None] < N) & (cols_D[None, :] < D),
            other=0.0,
        )
        new_RD = tl.load(
            new + ranks_R[:, None] * D + cols_D[None, :],
            mask=(ranks_R[:, None] < R) & (cols_D[None, :] < D),
            other=0.0,
        ).to(OLD)
        overlap_NR = tl.dot(old_ND, tl.trans(new_RD), overlap_NR, input_precision=PRECISION)
    in_NR = (rows_N[:, None] < N) & (ranks_R[None, :] < R)
    at_NR = rows_N[:, None] * R + ranks_R[None, :]
    parts_of_overlaps += tl.load(row + 7)
    tl.store(parts_of_overlaps + part * N * R + at_NR, overlap_NR, mask=in_NR)
    tl.debug_barrier()  # all threads have stored before one of them signals
    parts = tl.cdiv(D, PART_D)
    row_block = tl.load(row + 8) + block
    if tl.atomic_add(arrived + row_block, 1) == parts - 1:
        total_NR = tl.zeros([BLOCK_N, BLOCK_R], dtype=tl.float32)
        for place in range(0, parts):
            # bypasses the L1 cache, which does not see writes of other multiprocessors
            total_NR += tl.load(
                parts_of_overlaps + place * N * R + at_NR, mask=in_NR, other=0.0, cache_modifier=".cg"
            )
        tl.store(overlaps + tl.load(row + 5) + at_NR, total_NR, mask=in_NR)
        tl.store(squares + row_block, tl.sum(tl.sum(total_NR * total_NR, axis=1), axis=0))
        tl.debug_barrier()
        tl.atomic_add(ready, 1)


@triton.jit
def _gradient_item(
    row,
    overlaps,
    gradient,
    ready,
    block,
    OLD: tl.constexpr,
    ALIGNED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    GRADIENT_D: tl.constexpr,
):
    """Computes a block of columns of the gradient of a module, once its overlaps are finished."""
    old = tl.load(row + 1).to(tl.pointer_type(OLD))
    R, N, D = tl.load(row + 2), tl.load(row + 3), tl.load(row + 4)
    if ALIGNED:
        old, D = tl.multiple_of(old, 16), tl.multiple_of(D, 16)
    wanted = tl.cdiv(N, BLOCK_N).to(tl.int32)
    finished = tl.atomic_add(ready, 0)
    turns = 0
    while (finished < wanted) & (turns < MOST_TURNS):
        finished = tl.atomic_add(ready, 0)
        turns += 1
    ranks_R = tl.arange(0, BLOCK_R)
    cols_D = block * GRADIENT_D + tl.arange(0, GRADIENT_D)
    overlaps += tl.load(row + 5)
    sum_RD = tl.zeros([BLOCK_R, GRADIENT_D], dtype=tl.float32)
    if finished < wanted:
        sum_RD += float("nan")
    for start in range(0, N, BLOCK_N):
        rows_N = start + tl.arange(0, BLOCK_N)
        old_ND = tl.load(
            old + rows_N[:, None] * D + cols_D[None, :],
            mask=(rows_N[:, None] < N) & (cols_D[None, :] < D),
            other=0.0,
        )
        overlap_RN = tl.load(
            overlaps + rows_N[None, :] * R + ranks_R[:, None],
            mask=(rows_N[None, :] < N) & (ranks_R[:, None] < R),
            other=0.0,
            cache_modifier=".cg",
        )
        if tl.float16 == OLD:  # overlaps may exceed its range
            sum_RD = tl.dot(overlap_RN, old_ND.to(tl.float32), sum_RD, input_precision=PRECISION)
        else:
            sum_RD = tl.dot(overlap_RN.to(OLD), old_ND, sum_RD, input_precision=PRECISION)
    at_RD = gradient + tl.load(row + 6) + ranks_R[:, None] * D + cols_D[None, :]
    tl.store(at_RD, 2 * sum_RD, mask=(ranks_R[:, None] < R) & (cols_D[None, :] < D))


@triton.jit
def orthogonality_penalty_kernel(
    table,  # [modules,9] int64: addresses of new [R,D] and old [N,D]; R, N, D; offsets of the module in
    # overlaps, gradient and parts_of_overlaps; its first row block
    items,  # [items,3] int32: module, block of rows, part of the width; or -1 - module, block of columns, 0
    counters,  # [1 + modules + row blocks] int32 zeros: tickets, finished row blocks, arrived parts
    parts_of_overlaps,  # [parts,N,R] for each module, float32
    overlaps,  # [N,R] for each module, float32
    squares,  # [row blocks] float32
    gradient,  # [R,D] for each module, of the type of the new adapters
    modules,
    NEW: tl.constexpr,  # element type of the new adapters
    OLD: tl.constexpr,  # element type of the earlier adapters
    ALIGNED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PART_D: tl.constexpr,
    GRADIENT_D: tl.constexpr,
):
    """Processes one item: the overlaps of some rows, or some columns of a gradient."""
    item = items + tl.atomic_add(counters, 1).to(tl.int64) * 3
    code = tl.load(item)
    block, part = tl.load(item + 1).to(tl.int64), tl.load(item + 2).to(tl.int64)
    if code >= 0:
        _overlap_item(
            table + code.to(tl.int64) * 9,
            parts_of_overlaps,
            overlaps,
            squares,
            counters + 1 + code,
            counters + 1 + modules,
            block,
            part,
            NEW,
            OLD,
            ALIGNED,
            PRECISION,
            BLOCK_R,
            BLOCK_N,
            BLOCK_D,
            PART_D,
        )
    else:
        module = -1 - code
        _gradient_item(
            table + module.to(tl.int64) * 9,
            overlaps,
            gradient,
            counters + 1 + module,
            block,
            OLD,
            ALIGNED,
            PRECISION,
            BLOCK_R,
            BLOCK_N,
            GRADIENT_D,
        )
