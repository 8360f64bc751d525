"""Inputs that the tests of all three operations share."""

import math

import torch
from torch import Tensor


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest wanted magnitude; infinite where a result is not finite."""
    got, wanted = got.detach().double().cpu(), wanted.detach().double().cpu()
    if got.shape != wanted.shape or not torch.isfinite(got).all():
        return math.inf
    if not wanted.numel():
        return 0.0
    difference = (got - wanted).abs()
    scale = wanted.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    return float(difference.max() / scale)


def score_inputs(
    B: int, L: int, D: int, K: int, R: int, M: int, dtype: torch.dtype = torch.float64, seed: int = 0
) -> list[Tensor | None]:
    """Arguments of layer_scores; the whitening is small enough that the precision stays positive."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    bank = torch.nn.functional.normalize(normal(K, L, M, D), dim=3)
    whitening = normal(K, L, R, D) / (2 * math.sqrt(max(R, 1) * D))
    tensors = [normal(B, L, D), normal(K, L, D), 1 + normal(K, L).abs(), whitening, bank]
    mask = torch.rand(K, M, generator=generator) > 0.4
    weights = [-normal(K, L).abs(), normal(K, L).abs()]
    return [*(t.to(dtype) for t in tensors), mask, *(t.to(dtype) for t in weights)]


def penalty_inputs(
    widths: tuple[int, ...], R: int, P: int, Q: int, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[list[Tensor], list[Tensor]]:
    """New and earlier adapters."""
    generator = torch.Generator().manual_seed(seed)
    new = [torch.randn(R, D, generator=generator, dtype=torch.float64).to(dtype) for D in widths]
    old = [torch.randn(P, Q, D, generator=generator, dtype=torch.float64).to(dtype) for D in widths]
    return new, old


def gated_inputs(
    B: int,
    T: int,
    D: int,
    S: int,
    outputs: tuple[int, ...],
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[list[Tensor], Tensor, Tensor, list[Tensor], Tensor]:
    """Outputs, input, stacked adapters and weights; the middle row is dead and holds a negative zero."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    y = [normal(B, T, width).to(dtype) for width in outputs]
    x, a = normal(B, T, D).to(dtype), (normal(len(outputs) * S, D) / math.sqrt(D)).to(dtype)
    b = [(normal(width, S) / math.sqrt(max(S, 1))).to(dtype) for width in outputs]
    weights = torch.rand(B, S, generator=generator, dtype=torch.float64)
    weights = weights * (torch.rand(B, S, generator=generator) > 0.4)
    if B:
        weights[B // 2] = 0
        y[0][B // 2] = -0.0
    return y, x, a, b, weights.to(dtype if dtype == torch.float64 else torch.float32)


def in_doubles(tensors: list[Tensor | None]) -> list[Tensor | None]:
    """The same numbers in float64."""
    return [t.double() if t is not None and t.is_floating_point() else t for t in tensors]
