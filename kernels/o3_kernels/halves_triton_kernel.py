"""Triton functions for products of numbers that are split into bfloat16 halves (see `halves.py`)."""

# Triton reads the arguments of a kernel itself: they have no Python types.
# ruff: noqa: ANN001, ANN201
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import triton
import triton.language as tl


@triton.jit
def halves_of(numbers):
    """Splits numbers into high and low bfloat16 halves."""
    high = numbers.to(tl.bfloat16)
    return high, (numbers.to(tl.float32) - high.to(tl.float32)).to(tl.bfloat16)


@triton.jit
def load_halves(at, plane, mask, HALVES: tl.constexpr):
    """Loads both halves of a tile, or splits it; the halves of another dtype are computed here."""
    high = tl.load(at, mask=mask, other=0.0)
    if HALVES:
        low = tl.load(at + plane, mask=mask, other=0.0)
    else:
        high, low = halves_of(high)
    return high, low


@triton.jit
def multiply_halves(high_a, low_a, high_b, low_b, total, TYPE: tl.constexpr, HALVES: tl.constexpr):
    """Adds a b to a total; the low halves of a are 0 if it is whole and of TYPE bfloat16."""
    if HALVES or tl.bfloat16 != TYPE:
        total = tl.dot(low_a, high_b, total)
    total = tl.dot(high_a, low_b, total)
    return tl.dot(high_a, high_b, total)
