"""Triton kernels of `orthogonality_penalty`: all modules in one launch, through a table of addresses.

R rank of the new adapter, N rows of all earlier adapters of a module, D width.
A row of the table: address of the new adapter [R,D], address of the earlier ones [N,D], R, N, D, where the
module's overlaps [N,R] start, where its gradient [R,D] starts.
"""

# Triton reads the arguments of a kernel itself: they have no Python types.
# ruff: noqa: ANN001, ANN201
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import triton
import triton.language as tl

__all__ = ["TABLE_COLUMNS", "orthogonality_penalty_bwd_kernel", "orthogonality_penalty_fwd_kernel"]

TABLE_COLUMNS = 7


@triton.jit
def orthogonality_penalty_fwd_kernel(
    table,  # [modules,7] int64
    overlaps,  # flat float32
    partial,  # [modules, row blocks] float32
    row_blocks,
    NEW: tl.constexpr,  # element type of the new adapters
    OLD: tl.constexpr,  # element type of the earlier adapters
    ALIGNED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Computes the overlaps of one module with a block of earlier rows, and their squares."""
    module = tl.program_id(1).to(tl.int64)
    block = tl.program_id(0).to(tl.int64)
    row = table + module * 7
    new = tl.load(row).to(tl.pointer_type(NEW))
    old = tl.load(row + 1).to(tl.pointer_type(OLD))
    R, N, D = tl.load(row + 2), tl.load(row + 3), tl.load(row + 4)
    if ALIGNED:
        new, old, D = tl.multiple_of(new, 16), tl.multiple_of(old, 16), tl.multiple_of(D, 16)
    rows_N = block * BLOCK_N + tl.arange(0, BLOCK_N)
    ranks_R = tl.arange(0, BLOCK_R)
    overlap_NR = tl.zeros([BLOCK_N, BLOCK_R], dtype=tl.float32)
    if block * BLOCK_N < N:
        for start in range(0, D, BLOCK_D):
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
        at_NR = overlaps + tl.load(row + 5) + rows_N[:, None] * R + ranks_R[None, :]
        tl.store(at_NR, overlap_NR, mask=(rows_N[:, None] < N) & (ranks_R[None, :] < R))
    # blocks beyond a short history write their zero, so that the sum reads no stale number
    total = tl.sum(tl.sum(overlap_NR * overlap_NR, axis=1), axis=0)
    tl.store(partial + module * row_blocks + block, total)


@triton.jit
def orthogonality_penalty_bwd_kernel(
    table,  # [modules,7] int64
    overlaps,  # flat float32
    gradient,  # flat, of the type of the new adapters
    OLD: tl.constexpr,
    ALIGNED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Computes a block of columns of the gradient of one module."""
    # the forward launch read the last modules last: starting with them finds some of them in the cache
    module = tl.num_programs(1) - 1 - tl.program_id(1).to(tl.int64)
    block = tl.program_id(0).to(tl.int64)
    row = table + module * 7
    old = tl.load(row + 1).to(tl.pointer_type(OLD))
    R, N, D = tl.load(row + 2), tl.load(row + 3), tl.load(row + 4)
    if ALIGNED:
        old, D = tl.multiple_of(old, 16), tl.multiple_of(D, 16)
    if block * BLOCK_D < D:
        ranks_R = tl.arange(0, BLOCK_R)
        cols_D = block * BLOCK_D + tl.arange(0, BLOCK_D)
        overlaps += tl.load(row + 5)
        sum_RD = tl.zeros([BLOCK_R, BLOCK_D], dtype=tl.float32)
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
            )
            if tl.float16 == OLD:  # overlaps may lie beyond its range
                sum_RD = tl.dot(overlap_RN, old_ND.to(tl.float32), sum_RD, input_precision=PRECISION)
            else:
                sum_RD = tl.dot(overlap_RN.to(OLD), old_ND, sum_RD, input_precision=PRECISION)
        at_RD = gradient + tl.load(row + 6) + ranks_R[:, None] * D + cols_D[None, :]
        tl.store(at_RD, 2 * sum_RD, mask=(ranks_R[:, None] < R) & (cols_D[None, :] < D))
