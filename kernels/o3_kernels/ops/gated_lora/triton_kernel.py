"""Triton kernels of `gated_lora`: down-projection to the stacked rank times the weights, and up-projection.

N rows (tokens of all batch rows), D input width, S stacked rank, O output width, P parts of the width with
separate sums that let small batches occupy the device, J layers with the same input.
"""

# Triton reads the arguments of a kernel itself: they have no Python types.
# ruff: noqa: ANN001, ANN201
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

LAYERS_PER_LAUNCH = 3  # query, key and value


@triton.jit
def gated_lora_shrink_kernel(
    x,  # [N,D]
    a,  # [J*S,D]
    weights,  # [B,S]
    hidden,  # [P,N,J*S] float32, N padded to whole blocks; zeros where the weight is zero
    N,
    T,  # tokens of a batch row
    D,
    S,
    JS,  # J * S
    part_width,  # a multiple of BLOCK_D
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_D: tl.constexpr,
    WAITS: tl.constexpr,  # whether the next kernel starts early and waits for this one
):
    """Projects a block of rows down to a block of ranks and multiplies it by the weights."""
    if WAITS:
        gdc_launch_dependents()
    rows_N = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    ranks_S = tl.program_id(1).to(tl.int64) * BLOCK_S + tl.arange(0, BLOCK_S)
    part = tl.program_id(2).to(tl.int64)
    inside_NS = (rows_N[:, None] < N) & (ranks_S[None, :] < JS)
    weight_NS = tl.load(
        weights + (rows_N // T)[:, None] * S + (ranks_S % S)[None, :], mask=inside_NS, other=0.0
    ).to(tl.float32)
    active = tl.max(tl.max((weight_NS != 0).to(tl.int32), axis=1), axis=0)
    hidden_NS = tl.zeros([BLOCK_N, BLOCK_S], dtype=tl.float32)
    if active != 0:
        for start in range(part * part_width, tl.minimum((part + 1) * part_width, D), BLOCK_D):
            cols_D = start + tl.arange(0, BLOCK_D)
            x_ND = tl.load(
                x + rows_N[:, None] * D + cols_D[None, :],
                mask=(rows_N[:, None] < N) & (cols_D[None, :] < D),
                other=0.0,
            )
            a_SD = tl.load(
                a + ranks_S[:, None] * D + cols_D[None, :],
                mask=(ranks_S[:, None] < JS) & (cols_D[None, :] < D),
                other=0.0,
            )
            hidden_NS = tl.dot(x_ND, tl.trans(a_SD), hidden_NS, input_precision=PRECISION)
    padded = tl.cdiv(N, BLOCK_N) * BLOCK_N
    at_NS = hidden + (part * padded + rows_N[:, None]) * JS + ranks_S[None, :]
    # a row without a weight is not read: it may hold anything
    tl.store(at_NS, tl.where(weight_NS != 0, hidden_NS * weight_NS, 0.0), mask=ranks_S[None, :] < JS)


@triton.jit
def gated_lora_expand_kernel(
    y0,  # [N,O0]
    y1,  # [N,O1]
    y2,  # [N,O2]
    result0,  # of the shapes of y; y itself if IN_PLACE
    result1,
    result2,
    b0,  # [O0,S]
    b1,  # [O1,S]
    b2,  # [O2,S]
    hidden,  # [P,N,J*S] float32, N padded to whole blocks
    N,
    S,
    JS,
    first,  # index of the first of these layers among the J
    O0,
    O1,
    O2,
    PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
    IN_PLACE: tl.constexpr,
    SKIPS: tl.constexpr,  # whether to skip ranks that no row of the block uses
    ONE_BLOCK: tl.constexpr,  # whether S fits BLOCK_S, so that there is no loop
    BLOCK_N: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_O: tl.constexpr,
    WAITS: tl.constexpr,
):
    """Projects a block of rows up and adds it to the rows with a nonzero update."""
    rows_N = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    block = tl.program_id(1).to(tl.int64)
    blocks0, blocks1 = tl.cdiv(O0, BLOCK_O), tl.cdiv(O1, BLOCK_O)
    y, result, b, width, layer = y0, result0, b0, O0, first
    if block >= blocks0 + blocks1:
        y, result, b, width, layer = y2, result2, b2, O2, first + 2
        block -= blocks0 + blocks1
    elif block >= blocks0:
        y, result, b, width, layer = y1, result1, b1, O1, first + 1
        block -= blocks0
    cols_O = block * BLOCK_O + tl.arange(0, BLOCK_O)
    ranks_S = tl.arange(0, BLOCK_S)
    at_OS = b + cols_O[:, None] * S + ranks_S[None, :]
    b_OS = tl.load(at_OS, mask=(cols_O[:, None] < width) & (ranks_S[None, :] < S), other=0.0)
    if WAITS:
        gdc_wait()  # for the hidden states: b was fetched meanwhile
    padded = tl.cdiv(N, BLOCK_N) * BLOCK_N
    live_N = tl.zeros([BLOCK_N], dtype=tl.int32)
    update_NO = tl.zeros([BLOCK_N, BLOCK_O], dtype=tl.float32)
    for start in range(0, BLOCK_S if ONE_BLOCK else S, BLOCK_S):
        ranks_S = start + tl.arange(0, BLOCK_S)
        at_NS = hidden + rows_N[:, None] * JS + layer * S + ranks_S[None, :]
        hidden_NS = tl.zeros([BLOCK_N, BLOCK_S], dtype=tl.float32)
        for part in tl.static_range(PARTS):
            hidden_NS += tl.load(at_NS + part * padded * JS, mask=ranks_S[None, :] < S, other=0.0)
        used_N = tl.max((hidden_NS != 0).to(tl.int32), axis=1)
        live_N = tl.maximum(live_N, used_N)
        if not SKIPS or tl.max(used_N, axis=0) != 0:
            if not ONE_BLOCK and start > 0:
                b_OS = tl.load(
                    at_OS + start, mask=(cols_O[:, None] < width) & (ranks_S[None, :] < S), other=0.0
                )
            update_NO = tl.dot(hidden_NS.to(b_OS.dtype), tl.trans(b_OS), update_NO, input_precision=PRECISION)
    # rows without an update keep their bits; in place they are neither read nor written
    in_NO = (rows_N[:, None] < N) & (cols_O[None, :] < width)
    live_NO = in_NO & (live_N[:, None] != 0)
    at_NO = rows_N[:, None] * width + cols_O[None, :]
    mask_NO = live_NO if IN_PLACE else in_NO
    y_NO = tl.load(y + at_NO, mask=mask_NO, other=0.0)
    sum_NO = (y_NO.to(tl.float32) + update_NO).to(y_NO.dtype)
    tl.store(result + at_NO, tl.where(live_NO, sum_NO, y_NO), mask=mask_NO)
