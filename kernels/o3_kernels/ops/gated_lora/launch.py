"""Launches the Triton kernels of `gated_lora`: one down-projection, one up-projection per three layers."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from o3_kernels.blocks import count_blocks, dot_precision, power_of_two, processors
from o3_kernels.ops.gated_lora.triton_kernel import (
    LAYERS_PER_LAUNCH,
    gated_lora_expand_kernel,
    gated_lora_shrink_kernel,
)
from o3_kernels.tuning import chosen_plan

__all__ = ["GatedLoRAPlan", "launch_gated_lora", "plan_gated_lora"]

MAX_PARTS = 16  # each part adds one read of the hidden states to every program of the second launch


class GatedLoRAPlan(NamedTuple):
    """Block sizes: rows; ranks, columns and parts of the down-projection; ranks and columns of the other."""

    block_n: int
    shrink_s: int
    shrink_d: int
    parts: int
    expand_s: int
    expand_o: int
    warps: int
    stages: int


def plan_gated_lora(
    rows: int, stacked_rank: int, layers: int, width: int, element_bytes: int, multiprocessors: int
) -> GatedLoRAPlan:
    """Returns block sizes for B*T rows, stacked rank S, J layers and width D of elements of x.

    For few rows (decoding) the width is split into parts to occupy the multiprocessors of the device.
    """
    block_n = power_of_two(rows, 16, 64)
    shrink_s = power_of_two(layers * stacked_rank, 16, 32 if block_n == 16 else 64)
    shrink_d = power_of_two(width, 16, 256 // element_bytes)
    programs = count_blocks(rows, block_n) * count_blocks(layers * stacked_rank, shrink_s)
    parts = power_of_two(count_blocks(2 * multiprocessors, max(programs, 1)), 1, MAX_PARTS)
    parts = min(parts, count_blocks(width, shrink_d))
    expand_s = power_of_two(stacked_rank, 16, 64)
    return GatedLoRAPlan(block_n, shrink_s, shrink_d, parts, expand_s, expand_o=64, warps=4, stages=3)


def launch_gated_lora(
    outputs: Sequence[Tensor],
    x: Tensor,
    a: Tensor,
    b: Sequence[Tensor],
    weights: Tensor,
    plan: GatedLoRAPlan | None = None,
) -> None:
    """Adds the updates to the outputs in place; `plan` overrides the default block sizes."""
    (B, T, D), S, J = x.shape, weights.shape[1], len(b)
    N = B * T
    if not N or not S:
        return
    sizes = (N, S, J, D, x.element_size(), processors(x))
    plan = plan or chosen_plan("gated_lora", plan_gated_lora, sizes, x.device)
    x, a, weights = x.contiguous(), a.contiguous(), weights.contiguous()
    part_blocks = count_blocks(count_blocks(D, plan.shrink_d), plan.parts)
    parts = max(count_blocks(D, part_blocks * plan.shrink_d), 1) if part_blocks else 1
    hidden = torch.empty((parts, N, J * S), dtype=torch.float32, device=x.device)
    precision = dot_precision(x)
    gated_lora_shrink_kernel[(count_blocks(N, plan.block_n), count_blocks(J * S, plan.shrink_s), parts)](
        x,
        a,
        weights,
        hidden,
        N,
        T,
        D,
        S,
        J * S,
        part_blocks * plan.shrink_d,
        PRECISION=precision,
        BLOCK_N=plan.block_n,
        BLOCK_S=plan.shrink_s,
        BLOCK_D=plan.shrink_d,
        num_warps=plan.warps,
        num_stages=plan.stages,
    )
    for first in range(0, J, LAYERS_PER_LAUNCH):
        last = first + LAYERS_PER_LAUNCH
        _launch_expand(outputs[first:last], b[first:last], weights, hidden, (T, S, J * S, first), plan)


def _launch_expand(
    outputs: Sequence[Tensor],
    b: Sequence[Tensor],
    weights: Tensor,
    hidden: Tensor,
    sizes: tuple[int, int, int, int],
    plan: GatedLoRAPlan,
) -> None:
    """Adds the updates of up to three layers; missing layers have width 0 and thus no programs."""
    written = [output.contiguous() for output in outputs]
    parts, N, _ = hidden.shape
    widths = [output.shape[2] for output in outputs]
    missing = LAYERS_PER_LAUNCH - len(outputs)
    blocks = sum(count_blocks(width, plan.expand_o) for width in widths)
    if not blocks:
        return
    gated_lora_expand_kernel[(count_blocks(N, plan.block_n), blocks)](
        *written,
        *[written[0]] * missing,
        *[b_j.contiguous() for b_j in b],
        *[b[0]] * missing,
        weights,
        hidden,
        N,
        *sizes,
        *widths,
        *[0] * missing,
        PARTS=parts,
        PRECISION=dot_precision(outputs[0]),
        BLOCK_N=plan.block_n,
        BLOCK_S=plan.expand_s,
        BLOCK_O=plan.expand_o,
        num_warps=plan.warps,
        num_stages=plan.stages,
    )
    for output, result in zip(outputs, written, strict=True):
        if result is not output and result.data_ptr() != output.data_ptr():
            output.copy_(result)
