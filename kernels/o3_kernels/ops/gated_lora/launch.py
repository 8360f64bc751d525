"""Launches the Triton kernels of `gated_lora`: one down-projection, one up-projection per three layers."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from o3_kernels.blocks import count_blocks, device_of, dot_precision, launches_early, power_of_two, processors
from o3_kernels.ops.gated_lora.triton_kernel import (
    LAYERS_PER_LAUNCH,
    gated_lora_expand_kernel,
    gated_lora_shrink_kernel,
)
from o3_kernels.tuning import chosen_plan

MAX_PARTS = 4  # each part adds one read of the hidden states to every program of the second launch
DECODE_ROWS = 16  # up to here the second launch reads its B while it waits for the first


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


@lru_cache(maxsize=256)
def plan_gated_lora(
    rows: int, stacked_rank: int, layers: int, width: int, element_bytes: int, multiprocessors: int
) -> GatedLoRAPlan:
    """Returns block sizes for B*T rows, stacked rank S, J layers and width D of elements of x.

    For few rows (decoding) the width is split into parts to occupy the multiprocessors of the device.
    """
    block_n = power_of_two(rows, 16, 64)
    decode = block_n == DECODE_ROWS
    shrink_s = power_of_two(layers * stacked_rank, 16, 32 if decode else 64)
    shrink_d = power_of_two(width, 16, 256 // element_bytes)
    programs = count_blocks(rows, block_n) * count_blocks(layers * stacked_rank, shrink_s)
    parts = power_of_two(multiprocessors // max(programs, 1), 1, MAX_PARTS)
    parts = min(parts, count_blocks(width, shrink_d))
    expand_s = power_of_two(stacked_rank, 16, 128 if decode else 64)
    return GatedLoRAPlan(block_n, shrink_s, shrink_d, parts, expand_s, expand_o=64, warps=4, stages=3)


def launch_gated_lora(
    outputs: Sequence[Tensor],
    x: Tensor,
    a: Tensor,
    b: Sequence[Tensor],
    weights: Tensor,
    plan: GatedLoRAPlan | None = None,
    results: Sequence[Tensor] | None = None,
) -> None:
    """Adds the updates to the outputs in place, or writes the sums into contiguous `results`.

    `plan` overrides the default block sizes.
    """
    with device_of(x):
        _launch(outputs, x, a, b, weights, plan, results)


def _launch(
    outputs: Sequence[Tensor],
    x: Tensor,
    a: Tensor,
    b: Sequence[Tensor],
    weights: Tensor,
    plan: GatedLoRAPlan | None,
    results: Sequence[Tensor] | None,
) -> None:
    (B, T, D), S, J = x.shape, weights.shape[1], len(b)
    N = B * T
    if not N or not S:
        for output, result in zip(outputs, results or (), strict=False):
            result.copy_(output)
        return
    sizes = (N, S, J, D, x.element_size(), processors(x))
    plan = plan or chosen_plan("gated_lora", plan_gated_lora, sizes, x.device)
    x, a, weights = x.contiguous(), a.contiguous(), weights.contiguous()
    part_blocks = count_blocks(count_blocks(D, plan.shrink_d), plan.parts)
    parts = max(count_blocks(D, part_blocks * plan.shrink_d), 1) if part_blocks else 1
    row_blocks, one_block = count_blocks(N, plan.block_n), plan.expand_s >= S
    hidden = torch.empty((parts, row_blocks * plan.block_n, J * S), dtype=torch.float32, device=x.device)
    early, precision = launches_early(x), dot_precision(x)
    gated_lora_shrink_kernel[(row_blocks, count_blocks(J * S, plan.shrink_s), parts)](
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
        WAITS=bool(early),
        num_warps=plan.warps,
        num_stages=plan.stages,
    )
    read = [output.contiguous() for output in outputs]
    written = read if results is None else results
    for first in range(0, J, LAYERS_PER_LAUNCH):
        layers = slice(first, first + LAYERS_PER_LAUNCH)
        widths = [output.shape[2] for output in outputs[layers]]
        blocks = sum(count_blocks(width, plan.expand_o) for width in widths)
        missing = LAYERS_PER_LAUNCH - len(widths)  # of width 0, and thus without programs
        if blocks:
            gated_lora_expand_kernel[(row_blocks, blocks)](
                *read[layers],
                *[x] * missing,
                *written[layers],
                *[x] * missing,
                *[b_j.contiguous() for b_j in b[layers]],
                *[x] * missing,
                hidden,
                N,
                S,
                J * S,
                first,
                *widths,
                *[0] * missing,
                PARTS=parts,
                PRECISION=precision,
                IN_PLACE=results is None,
                SKIPS=plan.block_n > DECODE_ROWS,
                ONE_BLOCK=one_block,
                BLOCK_N=plan.block_n,
                BLOCK_S=plan.expand_s,
                BLOCK_O=plan.expand_o,
                WAITS=bool(early),
                num_warps=plan.warps,
                num_stages=1 if one_block else plan.stages,
                **early,
            )
    if results is None:
        for output, result in zip(outputs, written, strict=True):
            if result is not output:
                output.copy_(result)
