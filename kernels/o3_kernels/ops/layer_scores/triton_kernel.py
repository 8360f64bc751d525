"""Triton kernels of `layer_scores`: tiles of all banks and whitenings, then a reduction over the tiles.

K requests, L layers, B rows, D width, N rows of a tile (of a bank or of a whitening), P tiles.

Precision: every number enters a product with 16 significant bits, as two bfloat16 halves (`halves.py`),
whatever the dtypes and the number of rows. The halves of centred rows are computed in the loop, because they
differ by request.
"""

# Triton reads the arguments of a kernel itself: they have no Python types.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from o3_kernels.halves_triton_kernel import halves_of, load_halves, multiply_halves


@triton.jit
def layer_scores_rows_kernel(
    features,  # [B*L,D]
    halves,  # [2,B*L,D] bfloat16, written
    squares,  # [B*L] float32, written: squared lengths
    D,
    plane,  # B*L*D
    BLOCK_D: tl.constexpr,
    WAITS: tl.constexpr,  # whether the next kernel starts early and waits for this one
):
    """Splits one row of the features and squares its length."""
    if WAITS:
        gdc_launch_dependents()
    start = tl.program_id(0).to(tl.int64) * D
    sum_D = tl.zeros([BLOCK_D], dtype=tl.float32)
    for first in range(0, D, BLOCK_D):
        cols_D = first + tl.arange(0, BLOCK_D)
        x_D = tl.load(features + start + cols_D, mask=cols_D < D, other=0.0).to(tl.float32)
        high_D, low_D = halves_of(x_D)
        tl.store(halves + start + cols_D, high_D, mask=cols_D < D)
        tl.store(halves + plane + start + cols_D, low_D, mask=cols_D < D)
        sum_D += x_D * x_D
    tl.store(squares + tl.program_id(0), tl.sum(sum_D, axis=0))


@triton.jit
def _products(
    tile,
    plane,
    rows_N,
    count,
    x,
    x_plane,
    mean,
    starts_B1,
    in_B1,
    D,
    HAS_MEANS: tl.constexpr,
    HALVES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_B: tl.constexpr,
    EVEN: tl.constexpr,
):
    """Returns tile c^T [N,B] and, with means, ||c||^2 [B]; x are halves of rows, or rows to centre."""
    product_NB = tl.zeros([BLOCK_N, BLOCK_B], dtype=tl.float32)
    square_BD = tl.zeros([BLOCK_B, BLOCK_D], dtype=tl.float32)
    in_N1 = (rows_N < count)[:, None]
    for start in range(0, D, BLOCK_D):
        cols_1D = (start + tl.arange(0, BLOCK_D))[None, :]
        in_BD = in_B1 if EVEN else in_B1 & (cols_1D < D)
        in_ND = in_N1 if EVEN else in_N1 & (cols_1D < D)
        if HAS_MEANS:
            mean_1D = tl.load(mean + cols_1D, mask=cols_1D < D, other=0.0).to(tl.float32)
            c_BD = tl.load(x + starts_B1 + cols_1D, mask=in_BD, other=0.0).to(tl.float32) - mean_1D
            square_BD += c_BD * c_BD
            high_BD, low_BD = halves_of(c_BD)
        else:
            high_BD, low_BD = load_halves(x + starts_B1 + cols_1D, x_plane, in_BD, True)
        high_ND, low_ND = load_halves(tile + rows_N[:, None] * D + cols_1D, plane, in_ND, HALVES)
        product_NB = multiply_halves(
            high_ND, low_ND, tl.trans(high_BD), tl.trans(low_BD), product_NB, tile.dtype.element_ty, HALVES
        )
    return product_NB, tl.sum(square_BD, axis=1)


@triton.jit
def layer_scores_tiles_kernel(
    features,  # [B,L,D]
    halves,  # [2,B,L,D] bfloat16
    squares,  # [B,L] float32
    means,  # [K,L,D], read if HAS_MEANS
    precision_scale,  # [K,L]
    whitening,  # [K,L,R,D], rows side by side; its halves if WHITENING_HALVES
    bank,  # [K,L,M,D], rows side by side; its halves if BANK_HALVES
    bank_mask,  # [K,M] int8, read if HAS_MASK
    partial,  # [K,B,L,P] float32: maxima of the bank tiles, then sums of the whitening tiles
    x_plane,  # B*L*D
    whitening_plane,  # strides: from high to low halves, requests, layers
    whitening_stride_k,
    whitening_stride_l,
    bank_plane,
    bank_stride_k,
    bank_stride_l,
    B,
    L,
    R,
    M,
    D,
    row_blocks,  # of the batch
    sign,  # whitening_sign
    BANK_TILES: tl.constexpr,
    TILES: tl.constexpr,
    HAS_MEANS: tl.constexpr,
    HAS_MASK: tl.constexpr,
    WHITENING_HALVES: tl.constexpr,
    BANK_HALVES: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    EVEN: tl.constexpr,  # whether D is a multiple of BLOCK_D
    WAITS: tl.constexpr,
):
    """Scores a block of rows against one tile of one bank or whitening."""
    # row blocks vary fastest, so that programs that share a tile run together and find it in the cache;
    # requests and layers share their axis: the others end at 65,535
    place_kl = (tl.program_id(0) // row_blocks).to(tl.int64)
    tile = tl.program_id(1).to(tl.int64)
    k, layer = place_kl // L, place_kl % L
    rows_B = (tl.program_id(0) % row_blocks).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    starts_B1 = ((rows_B * L + layer) * D)[:, None]
    in_B1 = (rows_B < B)[:, None]
    if WAITS:
        gdc_wait()  # for the halves
    square_B = tl.load(squares + rows_B * L + layer, mask=rows_B < B, other=0.0)
    if tile < BANK_TILES:
        rows_N = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        product_NB, _ = _products(
            bank + k * bank_stride_k + layer * bank_stride_l, bank_plane, rows_N, M, halves, x_plane, means,
            starts_B1, in_B1, D, False, BANK_HALVES, BLOCK_N, BLOCK_D, BLOCK_B, EVEN,
        )  # fmt: skip
        counts_N = rows_N < M
        if HAS_MASK:
            counts_N = tl.load(bank_mask + k * M + rows_N, mask=counts_N, other=0) != 0
        cosine_NB = product_NB / tl.maximum(tl.sqrt(square_B), 1e-12)[None, :]
        result_B = tl.max(tl.where(counts_N[:, None], cosine_NB, -1.0), axis=0)
    else:
        rows_N = (tile - BANK_TILES) * BLOCK_N + tl.arange(0, BLOCK_N)
        own = whitening + k * whitening_stride_k + layer * whitening_stride_l
        if HAS_MEANS:
            product_NB, square_B = _products(
                own, whitening_plane, rows_N, R, features, x_plane, means + place_kl * D, starts_B1, in_B1, D,
                True, WHITENING_HALVES, BLOCK_N, BLOCK_D, BLOCK_B, EVEN,
            )  # fmt: skip
        else:
            product_NB, _ = _products(
                own, whitening_plane, rows_N, R, halves, x_plane, means, starts_B1, in_B1, D, False,
                WHITENING_HALVES, BLOCK_N, BLOCK_D, BLOCK_B, EVEN,
            )  # fmt: skip
        scale = tl.load(precision_scale + place_kl).to(tl.float32)
        # the multiple of the identity is counted once, with the first tile
        own_B = tl.where(tile == BANK_TILES, scale * square_B, 0.0)
        result_B = own_B + sign * tl.sum(product_NB * product_NB, axis=0)
    place_B = ((k * B + rows_B) * L + layer) * TILES + tile
    tl.store(partial + place_B, result_B, mask=rows_B < B)


@triton.jit
def layer_scores_combine_kernel(
    partial,  # [K,B,L,P] float32
    maha_weights,  # [K,L] float64
    cosine_weights,  # [K,L] float64
    mahalanobis,  # [K,B,L] float32
    cosine,  # [K,B,L] float32
    aggregate,  # [K,B] float64
    B,
    L,
    smallest,  # lower bound of the squared distance in whitened cosines
    WHITEN_COSINE: tl.constexpr,
    BANK_TILES: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_P: tl.constexpr,
    WAITS: tl.constexpr,
):
    """Reduces the tiles of one row and request, and computes the weighted sum over the layers."""
    place_kb = tl.program_id(0).to(tl.int64)
    k = place_kb // B
    layers_L = tl.arange(0, BLOCK_L)
    in_L = layers_L < L
    tiles_1P = tl.arange(0, BLOCK_P)[None, :]
    at_LP = partial + (place_kb * L + layers_L[:, None]) * TILES + tiles_1P
    is_bank_LP = in_L[:, None] & (tiles_1P < BANK_TILES)
    is_whitening_LP = in_L[:, None] & (tiles_1P >= BANK_TILES) & (tiles_1P < TILES)
    if WAITS:
        gdc_wait()
    cosine_L = tl.max(tl.load(at_LP, mask=is_bank_LP, other=-1.0), axis=1)
    mahalanobis_L = tl.sum(tl.load(at_LP, mask=is_whitening_LP, other=0.0), axis=1)
    if WHITEN_COSINE:
        cosine_L = cosine_L / tl.sqrt(tl.maximum(mahalanobis_L, smallest))
    tl.store(cosine + place_kb * L + layers_L, cosine_L, mask=in_L)
    tl.store(mahalanobis + place_kb * L + layers_L, mahalanobis_L, mask=in_L)
    maha_weights_L = tl.load(maha_weights + k * L + layers_L, mask=in_L, other=0.0)
    cosine_weights_L = tl.load(cosine_weights + k * L + layers_L, mask=in_L, other=0.0)
    total = tl.sum(maha_weights_L * mahalanobis_L + cosine_weights_L * cosine_L, axis=0)
    tl.store(aggregate + place_kb, total)
