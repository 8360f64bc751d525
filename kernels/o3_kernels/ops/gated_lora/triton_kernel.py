"""Triton kernels of `gated_lora`: down-projection to the stacked rank times the weights, and up-projection.

N rows (tokens of all batch rows), D input width, S stacked rank, O output width, P parts of the width with
separate sums that let small batches occupy the device, J layers with the same input.
"""

# Triton reads the arguments of a kernel itself: they have no Python types.
# ruff: noqa: ANN001, ANN201
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import triton
import triton.language as tl

__all__ = ["LAYERS_PER_LAUNCH", "gated_lora_expand_kernel", "gated_lora_shrink_kernel"]

LAYERS_PER_LAUNCH = 3  # query, key and value


@triton.jit
def gated_lora_shrink_kernel(
    x,  # [N,D]
    a,  # [J*S,D]
    weights,  # [B,S]
    hidden,  # [P,N,J*S] float32, written where the weight is not zero
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
):
    """Projects a block of rows down to a block of ranks and multiplies it by the weights."""
    rows_N = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    ranks_S = tl.program_id(1).to(tl.int64) * BLOCK_S + tl.arange(0, BLOCK_S)
    part = tl.program_id(2).to(tl.int64)
    inside_NS = (rows_N[:, None] < N) & (ranks_S[None, :] < JS)
    weight_NS = tl.load(
        weights + (rows_N // T)[:, None] * S + (ranks_S % S)[None, :], mask=inside_NS, other=0.0
    ).to(tl.float32)
    active = tl.max(tl.max((weight_NS != 0).to(tl.int32), axis=1), axis=0)
    if active != 0:
        hidden_NS = tl.zeros([BLOCK_N, BLOCK_S], dtype=tl.float32)
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
        at_NS = hidden + (part * N + rows_N[:, None]) * JS + ranks_S[None, :]
        tl.store(at_NS, hidden_NS * weight_NS, mask=inside_NS & (weight_NS != 0))


@triton.jit
def gated_lora_expand_kernel(
    y0,  # [N,O0], added to in place
    y1,  # [N,O1]
    y2,  # [N,O2]
    b0,  # [O0,S]
    b1,  # [O1,S]
    b2,  # [O2,S]
    weights,  # [B,S]
    hidden,  # [P,N,J*S] float32
    N,
    T,
    S,
    JS,
    first,  # index of the first of these layers among the J
    O0,
    O1,
    O2,
    PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """Projects a block of rows up and adds it to the rows with a nonzero weight."""
    rows_N = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    block = tl.program_id(1).to(tl.int64)
    blocks0, blocks1 = tl.cdiv(O0, BLOCK_O), tl.cdiv(O1, BLOCK_O)
    y, b, width, layer = y0, b0, O0, first
    if block >= blocks0 + blocks1:
        y, b, width, layer, block = y2, b2, O2, first + 2, block - blocks0 - blocks1
    elif block >= blocks0:
        y, b, width, layer, block = y1, b1, O1, first + 1, block - blocks0
    cols_O = block * BLOCK_O + tl.arange(0, BLOCK_O)
    in_N = rows_N < N
    live_N = tl.zeros([BLOCK_N], dtype=tl.int32)
    update_NO = tl.zeros([BLOCK_N, BLOCK_O], dtype=tl.float32)
    for start in range(0, S, BLOCK_S):
        ranks_S = start + tl.arange(0, BLOCK_S)
        weight_NS = tl.load(
            weights + (rows_N // T)[:, None] * S + ranks_S[None, :],
            mask=in_N[:, None] & (ranks_S[None, :] < S),
            other=0.0,
        )
        on_NS = weight_NS != 0
        live_N = tl.maximum(live_N, tl.max(on_NS.to(tl.int32), axis=1))
        if tl.max(tl.max(on_NS.to(tl.int32), axis=1), axis=0) != 0:
            ranks_1S = layer * S + ranks_S[None, :]
            hidden_NS = tl.zeros([BLOCK_N, BLOCK_S], dtype=tl.float32)
            for part in tl.static_range(PARTS):
                hidden_NS += tl.load(
                    hidden + (rows_N[:, None] + part * N) * JS + ranks_1S, mask=on_NS, other=0.0
                )
            b_OS = tl.load(
                b + cols_O[:, None] * S + ranks_S[None, :],
                mask=(cols_O[:, None] < width) & (ranks_S[None, :] < S),
                other=0.0,
            )
            update_NO = tl.dot(hidden_NS.to(b_OS.dtype), tl.trans(b_OS), update_NO, input_precision=PRECISION)
    # inactive rows are neither read nor written, so they keep their bits
    write_NO = (live_N[:, None] != 0) & (cols_O[None, :] < width)
    at_NO = y + rows_N[:, None] * width + cols_O[None, :]
    y_NO = tl.load(at_NO, mask=write_NO, other=0.0)
    tl.store(at_NO, y_NO.to(tl.float32) + update_NO, mask=write_NO)
