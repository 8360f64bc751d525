"""Persistent Triton kernel of `orthogonality_penalty`: value and gradient of all modules in one launch.

R rank of the new adapter, N rows of all earlier adapters of a module, D width.

Memory traffic. The gradient of a module needs its complete overlap, so two launches would read the history
twice from memory: 2 N D elements per module, where the minimum is N D + 2 R D. Here both are items of one
list: first the overlaps of a module, then its gradient some megabytes of other modules later, when the
overlaps are finished and the rows are still in the L2 cache (50 MB on an H200, in two parts). A module that
is too large for it (64 requests of rank 32 at width 11,008 take 90 MB in float32) is cut into chunks of rows,
so that each earlier adapter is read from memory once. The gradients of its chunks are added in their order.

Progress. As many programs as fit the device take items by ticket until none is left. A program waits only for
items with lower tickets, which running programs have already taken; so there is no deadlock, however many
programs run at a time and in whatever order they start. A fixed stride would need all of them to run at once,
which a device that is shared with other kernels does not promise.

Determinism. Sums have a fixed order, whichever program computes them: the results are bitwise reproducible.

Precision. Every number enters a product with 16 significant bits, as two bfloat16 halves (`halves.py`). The
history should be split once per request; halves of the new adapters and of the overlaps are computed here.

Memory order. Results pass between programs through memory: a program signals with a release after a barrier
of its threads, and reads after an acquire. Overlaps fill whole cache lines per row block, so that no stale
line of the L1 cache holds a part of them.
"""

# Triton reads the arguments of a kernel itself: they have no Python types.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import triton
import triton.language as tl

from o3_kernels.halves_triton_kernel import halves_of, load_halves

MOST_TURNS = tl.constexpr(1 << 24)  # seconds of waiting, after which the result is NaN
COLUMNS = tl.constexpr(9)  # of a row of the table


@triton.jit
def _sizes(row, ALIGNED: tl.constexpr):
    """Returns R, N and D of a module as int32, which addresses tiles in few instructions, and its plane."""
    D, plane = tl.load(row + 2).to(tl.int32), tl.load(row + 3)
    # Triton before 3.9 ignores the hints of callers on what this returns, and would load single numbers; with
    # theirs, too, the loops of 3.9 are shorter
    if ALIGNED:
        D, plane = tl.multiple_of(D, 16), tl.multiple_of(plane, 16)
    return tl.load(row).to(tl.int32), tl.load(row + 1).to(tl.int32), D, plane


@triton.jit
def pairs_of(numbers):
    """Returns the halves of numbers [...,2]: together they fill a tile of tensor cores from rank 8 on."""
    high, low = halves_of(numbers)
    return tl.join(high, low)


@triton.jit
def add_products(high, low, pairs, total, TYPE: tl.constexpr, HALVES: tl.constexpr):
    """Adds the products of high and low halves with pairs of halves; low ones of a whole bfloat16 are 0."""
    if HALVES or tl.bfloat16 != TYPE:
        total = tl.dot(low, pairs, total)
    return tl.dot(high, pairs, total)


@triton.jit
def _overlap_item(
    address,
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
    HALVES: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    ALIGNED: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PART_D: tl.constexpr,
):
    """Computes the overlap of some earlier rows over a part of the width; the last part adds up all parts."""
    new = tl.load(address).to(tl.pointer_type(NEW))
    old = tl.load(address + 1).to(tl.pointer_type(OLD))
    R, N, D, plane = _sizes(row, ALIGNED)
    if ALIGNED:
        new, old = tl.multiple_of(new, 16), tl.multiple_of(old, 16)
        D, plane = tl.multiple_of(D, 16), tl.multiple_of(plane, 16)
    rows_N = block * BLOCK_N + tl.arange(0, BLOCK_N)
    ranks_R = tl.arange(0, BLOCK_R)
    in_N1, in_R1 = rows_N[:, None] < N, ranks_R[:, None] < R
    cols_D = tl.arange(0, BLOCK_D)
    offsets_ND = rows_N[:, None] * D + cols_D[None, :]  # from a column; the same in every step
    step = R if TRANSPOSED else 1  # between two columns of new
    offsets_RD = ranks_R[:, None] * (1 if TRANSPOSED else D) + cols_D[None, :] * step
    overlap_NC = tl.zeros([BLOCK_N, 2 * BLOCK_R], dtype=tl.float32)
    for start in range(part * PART_D, tl.minimum((part + 1) * PART_D, D), BLOCK_D):
        in_1D = (start + cols_D < D)[None, :]
        in_ND = in_N1 if EVEN else in_N1 & in_1D
        in_RD = in_R1 if EVEN else in_R1 & in_1D
        high_ND, low_ND = load_halves(old + start + offsets_ND, plane, in_ND, HALVES)
        new_RD = tl.load(new + start * step + offsets_RD, mask=in_RD, other=0.0)
        pairs_CD = tl.reshape(tl.permute(pairs_of(new_RD), (0, 2, 1)), (2 * BLOCK_R, BLOCK_D))
        overlap_NC = add_products(high_ND, low_ND, tl.trans(pairs_CD), overlap_NC, OLD, HALVES)
    overlap_NR = tl.sum(tl.reshape(overlap_NC, (BLOCK_N, BLOCK_R, 2)), axis=2)
    size = tl.cdiv(N, BLOCK_N).to(tl.int64) * (BLOCK_N * BLOCK_R)  # of a part of the overlaps
    at_NR = rows_N[:, None] * BLOCK_R + ranks_R[None, :]
    parts_of_overlaps += tl.load(row + 6) + at_NR
    tl.store(parts_of_overlaps + part * size, overlap_NR)
    tl.debug_barrier()  # all threads have stored before one of them signals
    parts = tl.cdiv(D, PART_D)
    row_block = tl.load(row + 7) + block
    if tl.atomic_add(arrived + row_block, 1, sem="acq_rel") == parts - 1:
        total_NR = tl.zeros([BLOCK_N, BLOCK_R], dtype=tl.float32)
        for place in range(0, parts):
            # bypasses the L1 cache, which does not see writes of other multiprocessors
            total_NR += tl.load(parts_of_overlaps + place * size, cache_modifier=".cg")
        at_NC = rows_N[:, None] * (2 * BLOCK_R) + tl.arange(0, 2 * BLOCK_R)[None, :]
        pairs_NC = tl.reshape(pairs_of(total_NR), (BLOCK_N, 2 * BLOCK_R))
        tl.store(overlaps + 2 * tl.load(row + 4) + at_NC, pairs_NC)
        tl.store(squares + row_block, tl.sum(tl.sum(total_NR * total_NR, axis=1), axis=0))
        tl.debug_barrier()
        tl.atomic_add(ready, 1, sem="release")


@triton.jit
def _wait(counter, wanted):
    """Waits until a counter reaches a number; returns less if it does not within seconds."""
    count = tl.atomic_add(counter, 0, sem="relaxed")
    turns = 0
    while (count < wanted) & (turns < MOST_TURNS):
        count = tl.atomic_add(counter, 0, sem="relaxed")
        turns += 1
    return tl.atomic_add(counter, 0, sem="acquire")  # now what was stored before the signals is visible


@triton.jit
def _gradient_item(
    address,
    row,
    overlaps,
    gradient,
    ready,
    written,
    chunk,
    block,
    OLD: tl.constexpr,
    HALVES: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    CHUNKED: tl.constexpr,
    ALIGNED: tl.constexpr,
    EVEN: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    GRADIENT_N: tl.constexpr,
    GRADIENT_D: tl.constexpr,
):
    """Computes a block of columns of the gradient of a chunk, once its overlaps are finished."""
    old = tl.load(address + 1).to(tl.pointer_type(OLD))
    R, N, D, plane = _sizes(row, ALIGNED)
    if ALIGNED:
        old = tl.multiple_of(old, 16)
        D, plane = tl.multiple_of(D, 16), tl.multiple_of(plane, 16)
    wanted = tl.cdiv(N, BLOCK_N).to(tl.int32)
    finished = _wait(ready, wanted)
    ranks_R = tl.arange(0, BLOCK_R)
    cols_D = block * GRADIENT_D + tl.arange(0, GRADIENT_D)
    overlaps += 2 * tl.multiple_of(tl.load(row + 4), 16)
    sum_DC = tl.zeros([GRADIENT_D, 2 * BLOCK_R], dtype=tl.float32)
    if finished < wanted:
        sum_DC += float("nan")
    offsets_ND = tl.arange(0, GRADIENT_N)[:, None] * D + cols_D[None, :]  # from a row; the same in every step
    offsets_NC = tl.arange(0, GRADIENT_N)[:, None] * (2 * BLOCK_R) + tl.arange(0, 2 * BLOCK_R)[None, :]
    in_1D = (cols_D < D)[None, :]
    for start in range(0, N, GRADIENT_N):
        in_N1 = (start + tl.arange(0, GRADIENT_N) < N)[:, None]
        in_ND = in_N1 if EVEN else in_N1 & in_1D
        high_ND, low_ND = load_halves(old + start * D + offsets_ND, plane, in_ND, HALVES)
        pairs_NC = tl.load(overlaps + start * (2 * BLOCK_R) + offsets_NC, cache_modifier=".cg")
        # the columns are the long side, which the tensor cores of Hopper need
        sum_DC = add_products(tl.trans(high_ND), tl.trans(low_ND), pairs_NC, sum_DC, OLD, HALVES)
    sum_DR = 2 * tl.sum(tl.reshape(sum_DC, (GRADIENT_D, BLOCK_R, 2)), axis=2)
    at_DR = cols_D[:, None] * R + ranks_R[None, :] if TRANSPOSED else cols_D[:, None] + ranks_R[None, :] * D
    in_DR = (ranks_R[None, :] < R) & (cols_D[:, None] < D)
    gradient += tl.load(row + 5) + at_DR
    if CHUNKED:
        before = tl.load(row + 8)
        if before >= 0:
            columns = tl.cdiv(D, GRADIENT_D)
            if _wait(written + before, columns) < columns:
                sum_DR += float("nan")
            sum_DR += tl.load(gradient, mask=in_DR, other=0.0, cache_modifier=".cg")
    tl.store(gradient, sum_DR, mask=in_DR)
    if CHUNKED:
        tl.debug_barrier()
        tl.atomic_add(written + chunk, 1, sem="release")


@triton.jit
def orthogonality_penalty_kernel(
    addresses,  # [chunks,2] int64: new [R,D], or [D,R] if TRANSPOSED, and old [N,D], or its high halves
    table,  # [chunks,9] int64: R, N, D; from high to low halves of old; offsets of the chunk in overlaps,
    # gradient and parts_of_overlaps; its first row block; the chunk before it of the same module, or -1
    items,  # [items,3] int32: chunk, block of rows, part of the width; or -1 - chunk, block of columns, 0
    counters,  # [1 + 2 chunks + row blocks] int32 zeros: tickets, finished row blocks, written columns,
    # arrived parts
    parts_of_overlaps,  # [parts,N,R] for each chunk, padded to whole blocks, float32
    overlaps,  # [N,2R] for each chunk, padded to whole blocks: pairs of halves, bfloat16
    squares,  # [row blocks] float32
    gradient,  # of the layout of new for each module, float32
    length,  # of items
    chunks,
    NEW: tl.constexpr,  # element type of the new adapters
    OLD: tl.constexpr,  # element type of the earlier adapters
    HALVES: tl.constexpr,  # whether the earlier adapters are split
    TRANSPOSED: tl.constexpr,
    CHUNKED: tl.constexpr,  # whether a module has several chunks, whose gradients are added in their order
    ALIGNED: tl.constexpr,
    EVEN: tl.constexpr,  # whether widths are multiples of BLOCK_D and GRADIENT_D
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    PART_D: tl.constexpr,
    GRADIENT_N: tl.constexpr,  # a divisor of BLOCK_N
    GRADIENT_D: tl.constexpr,
):
    """Processes items, the overlaps of some rows or some columns of a gradient, until none is left."""
    ticket = tl.atomic_add(counters, 1, sem="relaxed")
    while ticket < length:
        item = items + ticket.to(tl.int64) * 3
        code = tl.load(item)
        block, part = tl.load(item + 1), tl.load(item + 2)
        if code >= 0:
            _overlap_item(
                addresses + code.to(tl.int64) * 2, table + code.to(tl.int64) * COLUMNS, parts_of_overlaps,
                overlaps, squares, counters + 1 + code, counters + 1 + 2 * chunks, block, part,
                NEW, OLD, HALVES, TRANSPOSED, ALIGNED, EVEN, BLOCK_R, BLOCK_N, BLOCK_D, PART_D,
            )  # fmt: skip
        else:
            chunk = (-1 - code).to(tl.int64)
            _gradient_item(
                addresses + chunk * 2, table + chunk * COLUMNS, overlaps, gradient, counters + 1 + chunk,
                counters + 1 + chunks, chunk, block, OLD, HALVES, TRANSPOSED, CHUNKED, ALIGNED, EVEN, BLOCK_R,
                BLOCK_N, GRADIENT_N, GRADIENT_D,
            )  # fmt: skip
        ticket = tl.atomic_add(counters, 1, sem="relaxed")
