"""Triton kernels of `layer_scores`: tiles of all banks and whitenings, then a reduction over the tiles.

K requests, L layers, B rows, D width, N rows of a tile (of a bank or of a whitening), P tiles.
"""

# Triton reads the arguments of a kernel itself: they have no Python types.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import triton
import triton.language as tl

__all__ = ["layer_scores_combine_kernel", "layer_scores_tiles_kernel"]


@triton.jit
def _add_product(tile_ND, x_BD, product_NB, USE_DOT: tl.constexpr, PRECISION: tl.constexpr):
    """Adds tile x^T; a single row does not use tensor cores."""
    if USE_DOT:
        product_NB = tl.dot(tile_ND, tl.trans(x_BD.to(tile_ND.dtype)), product_NB, input_precision=PRECISION)
    else:
        product_NB += tl.sum(tile_ND.to(tl.float32) * x_BD, axis=1)[:, None]
    return product_NB


@triton.jit
def layer_scores_tiles_kernel(
    features,  # [B,L,D]
    means,  # [K,L,D], read if HAS_MEANS
    precision_scale,  # [K,L]
    whitening,  # [K,L,R,D], rows side by side
    bank,  # [K,L,M,D], rows side by side
    bank_mask,  # [K,M] int8, read if HAS_MASK
    partial,  # [K,B,L,P] float32: maxima of the bank tiles, then sums of the whitening tiles
    whitening_stride_k,
    whitening_stride_l,
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
    USE_DOT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Scores a block of rows against one tile of one bank or whitening."""
    # row blocks vary fastest, so that programs that share a tile run together and find it in the cache;
    # requests and layers share their axis: the others end at 65,535
    place_kl = (tl.program_id(0) // row_blocks).to(tl.int64)
    tile = tl.program_id(1).to(tl.int64)
    k, layer = place_kl // L, place_kl % L
    rows_B = (tl.program_id(0) % row_blocks).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    x_starts_B1 = ((rows_B * L + layer) * D)[:, None]
    product_NB = tl.zeros([BLOCK_N, BLOCK_B], dtype=tl.float32)
    squares_B = tl.zeros([BLOCK_B], dtype=tl.float32)
    if tile < BANK_TILES:
        rows_N = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        own_bank = bank + k * bank_stride_k + layer * bank_stride_l
        for start in range(0, D, BLOCK_D):
            cols_1D = (start + tl.arange(0, BLOCK_D))[None, :]
            x_BD = tl.load(
                features + x_starts_B1 + cols_1D, mask=(rows_B[:, None] < B) & (cols_1D < D), other=0.0
            ).to(tl.float32)
            tile_ND = tl.load(
                own_bank + rows_N[:, None] * D + cols_1D,
                mask=(rows_N[:, None] < M) & (cols_1D < D),
                other=0.0,
            )
            squares_B += tl.sum(x_BD * x_BD, axis=1)
            product_NB = _add_product(tile_ND, x_BD, product_NB, USE_DOT, PRECISION)
        counts_N = rows_N < M
        if HAS_MASK:
            counts_N = tl.load(bank_mask + k * M + rows_N, mask=counts_N, other=0) != 0
        cosine_NB = product_NB / tl.maximum(tl.sqrt(squares_B), 1e-12)[None, :]
        result_B = tl.max(tl.where(counts_N[:, None], cosine_NB, -1.0), axis=0)
    else:
        rows_N = (tile - BANK_TILES) * BLOCK_N + tl.arange(0, BLOCK_N)
        own_whitening = whitening + k * whitening_stride_k + layer * whitening_stride_l
        for start in range(0, D, BLOCK_D):
            cols_1D = (start + tl.arange(0, BLOCK_D))[None, :]
            in_BD = (rows_B[:, None] < B) & (cols_1D < D)
            centred_BD = tl.load(features + x_starts_B1 + cols_1D, mask=in_BD, other=0.0).to(tl.float32)
            if HAS_MEANS:
                mean_1D = tl.load(means + place_kl * D + cols_1D, mask=cols_1D < D, other=0.0).to(tl.float32)
                centred_BD = tl.where(in_BD, centred_BD - mean_1D, 0.0)
            tile_ND = tl.load(
                own_whitening + rows_N[:, None] * D + cols_1D,
                mask=(rows_N[:, None] < R) & (cols_1D < D),
                other=0.0,
            )
            squares_B += tl.sum(centred_BD * centred_BD, axis=1)
            product_NB = _add_product(tile_ND, centred_BD, product_NB, USE_DOT, PRECISION)
        scale = tl.load(precision_scale + place_kl).to(tl.float32)
        # the multiple of the identity is counted once, with the first tile
        own_B = tl.where(tile == BANK_TILES, scale * squares_B, 0.0)
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
