"""Compiles every kernel for sm_90, without a GPU, and prints what ptxas says as JSON.

At its planned sizes; with `--every` also with the block sizes that the tuner tries, and for arguments that
Triton compiles apart: numbers that are 1, numbers beyond 32 bits, and addresses and widths in no good place.
"""

import json
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

pytest.importorskip("triton")  # where doctests are collected without it

import triton
import triton.language as tl
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from benchmarks.kernels.tune import CHANGES, variations
from o3_kernels.ops.gated_lora import launch as gated_launch
from o3_kernels.ops.gated_lora import triton_kernel as gated
from o3_kernels.ops.layer_scores import launch as scores_launch
from o3_kernels.ops.layer_scores import triton_kernel as scores
from o3_kernels.ops.orthogonality_penalty import launch as penalty_launch
from o3_kernels.ops.orthogonality_penalty import triton_kernel as penalty

DTYPES = {"float32": ("fp32", 4, tl.float32), "bfloat16": ("bf16", 2, tl.bfloat16)}


class Launch(NamedTuple):
    """What a kernel without a plan of its own is launched with."""

    warps: int = 4
    stages: int = 3


class Arguments(NamedTuple):
    """What Triton knows of the numbers that a kernel is called with: each kind is compiled apart.

    Args:
        integers: type of sizes and strides.
        divisible: whether they and the addresses are multiples of 16.
        ones: pattern of the names of sizes and strides that are 1, which Triton puts into the code.
    """

    integers: str = "i32"
    divisible: bool = True
    ones: str = ""


USUAL = Arguments()
UNUSUAL = {
    "odd": Arguments(divisible=False),
    "ones": Arguments(divisible=False, ones=".*"),
    "one of them 1": Arguments(divisible=False, ones="O0|L|D"),
    "beyond 32 bits": Arguments(integers="i64"),
}


def compiled(kernel, pointers, numbers, constants, plan, arguments=USUAL):
    """Returns registers, spilled bytes and shared memory of a kernel."""
    names = kernel.arg_names
    types = pointers | {name: kind or arguments.integers for name, kind in numbers.items()}
    plain = [name for name in names if name in numbers and numbers[name] is None]
    constants = constants | {name: 1 for name in plain if re.fullmatch(arguments.ones, name)}
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    attributes = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names)
        if arguments.divisible and (signature[name].startswith("*") or signature[name] == arguments.integers)
    }
    options = {"num_warps": plan.warps, "num_stages": plan.stages}
    source = ASTSource(kernel, signature, constants, attributes)
    binary = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
        command = [str(tool), "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", usage).groups())
    return {
        "registers": registers,
        "stack_bytes": stack,
        "shared_bytes": binary.metadata.shared,
        "matrix_units": "mma" in binary.asm["ptx"],
    }


def sizes(*names):
    """Numbers whose type is that of sizes and strides."""
    return dict.fromkeys(names)


def plan_scores(dtype, rows):
    return scores_launch.plan_layer_scores(rows, 1024, 1024, DTYPES[dtype][1])


def layer_scores(dtype, rows, plan=None, arguments=USUAL):
    short, _, _ = DTYPES[dtype]
    plan = plan or plan_scores(dtype, rows)
    pointers = dict.fromkeys(("features", "means", "whitening", "bank"), "*" + short)
    pointers |= {"precision_scale": "*fp32", "bank_mask": "*i8", "partial": "*fp32"}
    strides = [f"{name}_stride_{axis}" for name in ("whitening", "bank") for axis in "kl"]
    numbers = sizes(*strides, *"BLRMD", "row_blocks") | {"sign": "fp32"}
    constants = {
        "BANK_TILES": 16,
        "TILES": 32,
        "HAS_MEANS": True,
        "HAS_MASK": True,
        "USE_DOT": plan.block_b > 1,
        "PRECISION": "tf32x3",
    }
    constants |= {"BLOCK_B": plan.block_b, "BLOCK_N": plan.block_n, "BLOCK_D": plan.block_d}
    return compiled(scores.layer_scores_tiles_kernel, pointers, numbers, constants, plan, arguments)


def combine_scores(tiles, arguments=USUAL):
    pointers = dict.fromkeys(("partial", "mahalanobis", "cosine"), "*fp32")
    pointers |= dict.fromkeys(("maha_weights", "cosine_weights", "aggregate"), "*fp64")
    constants = {
        "WHITEN_COSINE": True,
        "BANK_TILES": tiles // 2,
        "TILES": tiles,
        "BLOCK_L": 32,
        "BLOCK_P": tiles,
    }
    kernel, plan = scores.layer_scores_combine_kernel, Launch(warps=1)
    return compiled(kernel, pointers, sizes("B", "L") | {"smallest": "fp32"}, constants, plan, arguments)


def plan_penalty(dtype, rank):
    return penalty_launch.plan_penalty(rank, 16 * rank, 11008, DTYPES[dtype][1])


def orthogonality(dtype, rank, plan=None, arguments=USUAL, history=None):
    short, _, element = DTYPES[dtype]
    plan = plan or plan_penalty(dtype, rank)
    pointers = {"table": "*i64", "items": "*i32", "counters": "*i32", "gradient": "*" + short}
    pointers |= dict.fromkeys(("parts_of_overlaps", "overlaps", "squares"), "*fp32")
    constants = {"NEW": element, "OLD": DTYPES[history or dtype][2], "ALIGNED": arguments.divisible}
    constants |= {"BLOCK_R": plan.block_r, "BLOCK_N": plan.block_n, "BLOCK_D": plan.block_d}
    constants |= {"PART_D": plan.part_d, "GRADIENT_D": plan.gradient_d, "PRECISION": "tf32x3"}
    kernel = penalty.orthogonality_penalty_kernel
    return compiled(kernel, pointers, sizes("modules"), constants, plan, arguments)


def plan_gated(rows, layers=3):
    return gated_launch.plan_gated_lora(rows, 128, layers, 4096, 2, 132)


def gated_lora(rows, shrink, plan=None, arguments=USUAL):
    plan = plan or plan_gated(rows)
    pointers = dict.fromkeys(("x", "a", "y0", "y1", "y2", "b0", "b1", "b2"), "*bf16")
    pointers |= {"weights": "*fp32", "hidden": "*fp32"}
    numbers = sizes("N", "T", "D", "S", "JS", "part_width", "first", "O0", "O1", "O2")
    constants = {"PRECISION": "tf32x3", "BLOCK_N": plan.block_n}
    if shrink:
        constants |= {"BLOCK_S": plan.shrink_s, "BLOCK_D": plan.shrink_d}
        kernel = gated.gated_lora_shrink_kernel
    else:
        constants |= {"BLOCK_S": plan.expand_s, "BLOCK_O": plan.expand_o, "PARTS": plan.parts}
        kernel = gated.gated_lora_expand_kernel
    return compiled(kernel, pointers, numbers, constants, plan, arguments)


# Every kernel at the sizes that its rule chooses.
PLANNED = {
    "layer_scores float32 1 row": partial(layer_scores, "float32", 1),
    "layer_scores float32 16 rows": partial(layer_scores, "float32", 16),
    "layer_scores float32 64 rows": partial(layer_scores, "float32", 64),
    "layer_scores bfloat16 64 rows": partial(layer_scores, "bfloat16", 64),
    "layer_scores combine": partial(combine_scores, 64),
    "penalty float32 rank 8": partial(orthogonality, "float32", 8),
    "penalty float32 rank 32": partial(orthogonality, "float32", 32),
    "penalty bfloat16 rank 8": partial(orthogonality, "bfloat16", 8),
    "penalty bfloat16 rank 32": partial(orthogonality, "bfloat16", 32),
    "gated_lora down decode": partial(gated_lora, 16, True),
    "gated_lora up decode": partial(gated_lora, 16, False),
    "gated_lora down prefill": partial(gated_lora, 4096, True),
    "gated_lora up prefill": partial(gated_lora, 4096, False),
}


def unusual():
    """Every kernel for the arguments that Triton compiles apart, and a history of another type."""
    results = {"penalty bfloat16 history": orthogonality("float32", 8, history="bfloat16")}
    for name, arguments in UNUSUAL.items():
        results |= {
            f"layer_scores 1 row {name}": layer_scores("float32", 1, None, arguments),
            f"layer_scores 16 rows {name}": layer_scores("float32", 16, None, arguments),
            f"layer_scores combine {name}": combine_scores(64, arguments),
            f"penalty {name}": orthogonality("float32", 8, None, arguments),
            f"gated_lora down {name}": gated_lora(16, True, None, arguments),
            f"gated_lora up {name}": gated_lora(16, False, None, arguments),
        }
    return results


def candidates():
    """Every kernel with every plan that the tuner times beside the rule's."""
    results = {}
    for dtype in DTYPES:
        for rows in (1, 8, 64):
            for plan in variations(plan_scores(dtype, rows), CHANGES["layer_scores"]):
                results[f"layer_scores {dtype} {rows} {plan}"] = layer_scores(dtype, rows, plan)
        for rank in (8, 32):
            for plan in variations(plan_penalty(dtype, rank), CHANGES["orthogonality_penalty"]):
                results[f"penalty {dtype} {rank} {plan}"] = orthogonality(dtype, rank, plan)
    for rows in (16, 4096):
        for plan in variations(plan_gated(rows), CHANGES["gated_lora"]):
            for shrink in (True, False):
                results[f"gated_lora {shrink} {rows} {plan}"] = gated_lora(rows, shrink, plan)
    return results


def main():
    """Prints one line of JSON."""
    torch.set_num_threads(1)
    every = "--every" in sys.argv
    print(
        json.dumps({**unusual(), **candidates()} if every else {name: run() for name, run in PLANNED.items()})
    )


if __name__ == "__main__":
    main()
