"""One decoding step through the seven projections of a Llama-3-8B layer, with and without gated adapters."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from benchmarks.kernels.cases import Case
from o3_kernels import gated_lora_group
from o3_kernels.ops.gated_lora.reference import gated_lora_reference

INPUT_WIDTHS = (4096, 4096, 4096, 14336)  # of query, key and value; of output; of gate and up; of down
OUTPUT_WIDTHS = ((4096, 1024, 1024), (4096,), (14336, 14336), (4096,))

Group = tuple[Tensor, list[Tensor], Tensor, list[Tensor]]  # input, base weights, stacked a, b of each layer


def decoder_layer_case(B: int, K: int, R: int, device: torch.device) -> Case:
    """Returns a case of B rows, each with the adapter of one of K requests or none, under CUDA graphs."""
    S, dtype = K * R, torch.bfloat16

    def make(seed: int) -> tuple[Any, ...]:
        generator = torch.Generator(device).manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            numbers = torch.randn(*shape, generator=generator, device=device)
            return (numbers / math.sqrt(shape[-1])).to(dtype)

        groups = []
        for D, outputs in zip(INPUT_WIDTHS, OUTPUT_WIDTHS, strict=True):
            base, b = [normal(width, D) for width in outputs], [normal(width, S) for width in outputs]
            groups.append((normal(B, 1, D), base, normal(len(outputs) * S, D), b))
        weights = torch.zeros(B, K, device=device)
        weights[torch.arange(B), torch.arange(B) % K] = 1.0
        weights[::2] = 0
        return groups, weights.repeat_interleave(R, 1).to(dtype)

    least = sum(D * sum(outputs) for D, outputs in zip(INPUT_WIDTHS, OUTPUT_WIDTHS, strict=True))
    adapters = S * sum(
        len(outputs) * D + sum(outputs) for D, outputs in zip(INPUT_WIDTHS, OUTPUT_WIDTHS, strict=True)
    )
    return Case(
        operation="gated_lora",
        name="llama-3-8b layer decode",
        sizes={"B": B, "T": 1, "K": K, "S": S},
        make=make,
        variants={"ours": _layer(_ours), "eager": _layer(_eager), "base": _layer(lambda y, *_: y)},
        truth=lambda groups, weights: _layer(_eager)(
            [
                (x.double(), [w.double() for w in base], a.double(), [t.double() for t in b])
                for x, base, a, b in groups
            ],
            weights.double(),
        ),
        bytes=2 * (least + adapters),
        flops=2 * B * (least + adapters),
        dtype="bfloat16",
        tolerance=1e-2,
        unverified=("base",),
        graphed=True,
        caller="o3_lightning.gating.shared_input_layers.Siblings",
    )


def _layer(add: Callable[..., list[Tensor]]) -> Callable[[list[Group], Tensor], list[Tensor]]:
    """Returns a function that runs the base layers of every group and adds to their outputs."""

    @torch.no_grad()
    def run(groups: list[Group], weights: Tensor) -> list[Tensor]:
        results: list[Tensor] = []
        for x, base, a, b in groups:
            results += add([linear(x, weight) for weight in base], x, a, b, weights)
        return results

    return run


def _ours(y: list[Tensor], x: Tensor, a: Tensor, b: list[Tensor], weights: Tensor) -> list[Tensor]:
    """Adds in place, in shared launches."""
    return gated_lora_group(y, x, a, b, weights, inplace=True)


def _eager(y: list[Tensor], x: Tensor, a: Tensor, b: list[Tensor], weights: Tensor) -> list[Tensor]:
    """Adds by the definition."""
    parts = a.chunk(len(b))
    return [gated_lora_reference(*both, weights) for both in zip(y, [x] * len(b), parts, b, strict=True)]
