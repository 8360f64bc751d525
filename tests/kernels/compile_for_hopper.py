"""Compiles every kernel at its planned sizes for sm_90, without a GPU, and prints what ptxas says as JSON."""

import json
import re
import subprocess
import tempfile
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

from o3_kernels.ops.gated_lora import triton_kernel as gated
from o3_kernels.ops.gated_lora.launch import plan_gated_lora
from o3_kernels.ops.layer_scores import triton_kernel as scores
from o3_kernels.ops.layer_scores.launch import plan_layer_scores, plan_pool_tokens
from o3_kernels.ops.orthogonality_penalty import triton_kernel as penalty
from o3_kernels.ops.orthogonality_penalty.launch import plan_penalty

DTYPES = {"float32": ("fp32", 4, tl.float32), "bfloat16": ("bf16", 2, tl.bfloat16)}


class Launch(NamedTuple):
    """What a kernel without a plan of its own is launched with."""

    warps: int = 4
    stages: int = 3


def compiled(kernel, types, constants, plan):
    """Returns registers, spilled bytes and shared memory of a kernel, all sizes multiples of 16."""
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    attributes = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names)
        if signature[name].startswith("*") or signature[name] == "i32"
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


def layer_scores(dtype, rows):
    short, size, _ = DTYPES[dtype]
    plan = plan_layer_scores(rows, 1024, 1024, size)
    pointers = dict.fromkeys(("features", "means", "whitening", "bank"), "*" + short)
    pointers |= {"precision_scale": "*fp32", "bank_mask": "*i8", "partial": "*fp32"}
    strides = [f"{name}_stride_{axis}" for name in ("whitening", "bank") for axis in "kl"]
    numbers = dict.fromkeys([*strides, *"BLRMD"], "i32") | {"sign": "fp32"}
    constants = {
        "BANK_TILES": 16,
        "TILES": 32,
        "HAS_MEANS": True,
        "HAS_MASK": True,
        "USE_DOT": rows > 1,
        "PRECISION": "tf32x3",
    }
    constants |= {"BLOCK_B": plan.block_b, "BLOCK_N": plan.block_n, "BLOCK_D": plan.block_d}
    return compiled(scores.layer_scores_tiles_kernel, pointers | numbers, constants, plan)


def pool_tokens(dtype):
    short, size, _ = DTYPES[dtype]
    block_t, block_d = plan_pool_tokens(512, 1024, size)
    types = {"hidden_states": "*" + short, "token_mask": "*i8", "pooled": "*fp32"}
    types |= dict.fromkeys(("stride_l", "stride_b", "stride_t", "L", "T", "D"), "i32")
    constants = {"HAS_MASK": True, "BLOCK_T": block_t, "BLOCK_D": block_d}
    return compiled(scores.pool_tokens_kernel, types, constants, Launch())


def orthogonality(dtype, rank):
    short, size, element = DTYPES[dtype]
    plan = plan_penalty(rank, 16 * rank, 11008, size)
    types = {"table": "*i64", "items": "*i32", "counters": "*i32", "modules": "i32", "gradient": "*" + short}
    types |= dict.fromkeys(("parts_of_overlaps", "overlaps", "squares"), "*fp32")
    constants = {"NEW": element, "OLD": element, "ALIGNED": True, "PRECISION": "tf32x3"}
    constants |= {"BLOCK_R": plan.block_r, "BLOCK_N": plan.block_n, "BLOCK_D": plan.block_d}
    constants |= {"PART_D": plan.part_d, "GRADIENT_D": plan.gradient_d}
    return compiled(penalty.orthogonality_penalty_kernel, types, constants, plan)


def gated_lora(rows, shrink):
    plan = plan_gated_lora(rows, 128, 3, 4096, 2, 132)
    types = dict.fromkeys(("x", "a", "y0", "y1", "y2", "b0", "b1", "b2"), "*bf16")
    types |= {"weights": "*fp32", "hidden": "*fp32"}
    types |= dict.fromkeys(("N", "T", "D", "S", "JS", "part_width", "first", "O0", "O1", "O2"), "i32")
    constants = {"PRECISION": "tf32x3", "BLOCK_N": plan.block_n}
    if shrink:
        constants |= {"BLOCK_S": plan.shrink_s, "BLOCK_D": plan.shrink_d}
        return compiled(gated.gated_lora_shrink_kernel, types, constants, plan)
    constants |= {"BLOCK_S": plan.expand_s, "BLOCK_O": plan.expand_o, "PARTS": plan.parts}
    return compiled(gated.gated_lora_expand_kernel, types, constants, plan)


def main():
    """Prints one line of JSON."""
    torch.set_num_threads(1)
    results = {
        "layer_scores float32 1 row": layer_scores("float32", 1),
        "layer_scores float32 16 rows": layer_scores("float32", 16),
        "layer_scores bfloat16 64 rows": layer_scores("bfloat16", 64),
        "pool_tokens float32": pool_tokens("float32"),
        "pool_tokens bfloat16": pool_tokens("bfloat16"),
        "penalty float32 rank 8": orthogonality("float32", 8),
        "penalty float32 rank 32": orthogonality("float32", 32),
        "penalty bfloat16 rank 8": orthogonality("bfloat16", 8),
        "penalty bfloat16 rank 32": orthogonality("bfloat16", 32),
        "gated_lora down decode": gated_lora(16, True),
        "gated_lora up decode": gated_lora(16, False),
        "gated_lora down prefill": gated_lora(4096, True),
        "gated_lora up prefill": gated_lora(4096, False),
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
