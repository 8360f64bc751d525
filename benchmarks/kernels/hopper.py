"""Compiles every kernel for sm_90 without a GPU: `python -m benchmarks.kernels.hopper`.

For each kernel at its planned block sizes it reports registers, spilled bytes, shared memory, and the warp
instructions of its main loops per KB of bank, history or adapters that they read. A multiprocessor issues at
most 4 instructions a clock, so that 4.3 TB/s on an H200 need at most 112 for all loops together.
"""

import argparse
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

STACKED_RANK = 128  # of 16 requests of rank 8
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
        usage, sass = (dump(option, file.name) for option in ("--dump-resource-usage", "-sass"))
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", usage).groups())
    return {
        "registers": registers,
        "stack_bytes": stack,
        "shared_bytes": binary.metadata.shared,
        "matrix_units": "mma" in binary.asm["ptx"],
        "loops": main_loops(sass),
    }


def dump(option, file):
    """Returns what cuobjdump says about a compiled kernel."""
    command = [str(Path(nvidia.__file__).parent / "bin" / "cuobjdump"), option, file]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main_loops(sass):
    """Returns [instructions, bytes that a warp loads] of the innermost loops that use them in products.

    Of the whole kernel if it has products but no such loop.
    """
    found = re.finditer(r"/\*([0-9a-f]{4,})\*/\s+([^;/]+);", sass)
    code = [(int(match[1], 16), match[2]) for match in found]
    jumps = [(at, re.search(r"\bBRA\b.*?(0x[0-9a-f]+)", text)) for at, text in code]
    loops = [(int(jump[1], 16), at) for at, jump in jumps if jump and int(jump[1], 16) < at]
    results = []
    for first, last in loops:
        if any((low, high) != (first, last) and first <= low and high <= last for low, high in loops):
            continue
        body = [text for at, text in code if first <= at <= last]
        loaded = sum(bytes_loaded(text) for text in body)
        products = sum(bool(re.search(r"\b(HGMMA|HMMA|FFMA)\b", text)) for text in body)
        if loaded and products:
            results.append([len(body), loaded])
    body = [text for _, text in code if not text.startswith("NOP")]
    if not results and any("MMA" in text for text in body):
        return [[len(body), sum(map(bytes_loaded, body))]]
    return results


def bytes_loaded(instruction):
    """Returns how many bytes a warp loads from memory with an instruction."""
    if not re.search(r"\bLDG(STS)?\b", instruction):
        return 0
    width = re.search(r"\.(U8|S8|U16|S16|64|128)\b", instruction)
    return 32 * {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}.get(width[1] if width else "", 4)


def sizes(*names):
    """Numbers whose type is that of sizes and strides."""
    return dict.fromkeys(names)


def plan_scores(splits, rows):
    """The plan for a bank and a whitening of 1024 rows of width 1024."""
    return scores_launch.plan_layer_scores(rows, 1024, 1024, splits)


def layer_scores(dtype, rows, plan=None, arguments=USUAL, halves=None):
    """`dtype` of features, bank and whitening; float32 banks are halves unless told."""
    short, _, _ = DTYPES[dtype]
    halves = dtype == "float32" if halves is None else halves
    plan = plan or plan_scores(dtype != "bfloat16" and not halves, rows)
    pointers = dict.fromkeys(("features", "means"), "*" + short)
    pointers |= dict.fromkeys(("whitening", "bank"), "*bf16" if halves else "*" + short)
    pointers |= {"halves": "*bf16", "squares": "*fp32"}
    pointers |= {"precision_scale": "*fp32", "bank_mask": "*i8", "partial": "*fp32"}
    strides = [
        f"{name}_{axis}" for name in ("whitening", "bank") for axis in ("plane", "stride_k", "stride_l")
    ]
    numbers = sizes(*strides, *"BLRMD", "row_blocks", "x_plane") | {"sign": "fp32"}
    constants = {"BANK_TILES": 16, "TILES": 32, "HAS_MEANS": True, "HAS_MASK": True, "WAITS": True}
    constants |= {"WHITENING_HALVES": halves, "BANK_HALVES": halves}
    constants |= {"BLOCK_B": plan.block_b, "BLOCK_N": plan.block_n, "BLOCK_D": plan.block_d}
    constants |= {"EVEN": arguments.divisible}
    facts = compiled(scores.layer_scores_tiles_kernel, pointers, numbers, constants, plan, arguments)
    return facts | per_kb(facts, plan.block_n / (plan.block_n + plan.block_b))


def per_kb(facts, *shares):
    """Returns the instructions of each loop per KB of bank, history or adapters.

    `shares` are those of its loads; the last one counts for all further loops.
    """
    loops = facts["loops"]
    shares = [shares[min(place, len(shares) - 1)] for place in range(len(loops))]
    return {"per_kb": [1024 * n / loaded / own for (n, loaded), own in zip(loops, shares, strict=True)]}


def combine_scores(tiles, arguments=USUAL):
    """The reduction over the tiles."""
    pointers = dict.fromkeys(("partial", "mahalanobis", "cosine"), "*fp32")
    pointers |= dict.fromkeys(("maha_weights", "cosine_weights", "aggregate"), "*fp64")
    constants = {
        "WHITEN_COSINE": True,
        "BANK_TILES": tiles // 2,
        "TILES": tiles,
        "BLOCK_L": 32,
        "BLOCK_P": tiles,
        "WAITS": True,
    }
    kernel, plan = scores.layer_scores_combine_kernel, Launch(warps=1)
    return compiled(kernel, pointers, sizes("B", "L") | {"smallest": "fp32"}, constants, plan, arguments)


def plan_penalty(rank, splits=0, element_bytes=4):
    """The plan for 16 earlier requests of the same rank."""
    return penalty_launch.plan_penalty(rank, 16 * rank, 11008, splits, element_bytes)


def orthogonality(dtype, rank, plan=None, arguments=USUAL, history="halves", transposed=False, chunked=False):
    """`history` is "halves", or the dtype of earlier adapters that are not split."""
    halves = history == "halves"
    old = "bfloat16" if halves else history
    own = 4 if halves else DTYPES[old][1]  # bytes of a number of the history
    plan = plan or plan_penalty(rank, int(old != "bfloat16"), own)
    pointers = {
        "addresses": "*i64",
        "table": "*i64",
        "items": "*i32",
        "counters": "*i32",
        "overlaps": "*bf16",
    }
    pointers |= dict.fromkeys(("parts_of_overlaps", "squares", "gradient"), "*fp32")
    constants = {"NEW": DTYPES[dtype][2], "OLD": DTYPES[old][2], "HALVES": halves, "TRANSPOSED": transposed}
    constants |= {"BLOCK_R": plan.block_r, "BLOCK_N": plan.block_n, "BLOCK_D": plan.block_d}
    constants |= {"PART_D": plan.part_d, "GRADIENT_N": plan.gradient_n, "GRADIENT_D": plan.gradient_d}
    constants |= {"ALIGNED": arguments.divisible, "EVEN": arguments.divisible, "CHUNKED": chunked}
    kernel = penalty.orthogonality_penalty_kernel
    numbers = sizes("length", "chunks")
    facts = compiled(kernel, pointers, numbers, constants, plan, arguments)
    new = plan.block_n * own / (plan.block_n * own + plan.block_r * DTYPES[dtype][1])
    overlaps = plan.gradient_d * own / (plan.gradient_d * own + plan.block_r * 4)
    return facts | per_kb(facts, new, overlaps) | {"programs": plan.programs, "fitting": fitting(facts, plan)}


def fitting(facts, plan):
    """Returns how many programs the registers and the shared memory of a multiprocessor hold at a time."""
    registers = 32 * plan.warps * -(-facts["registers"] // 8) * 8  # a warp is given them by 8 a thread
    return min(65536 // registers, 228 * 1024 // (facts["shared_bytes"] + 1024))


def plan_gated(rows, layers=3):
    """The plan for 16 requests of rank 8 in three layers of width 4096."""
    return gated_launch.plan_gated_lora(rows, STACKED_RANK, layers, 4096, 2, 132)


def gated_lora(rows, shrink, plan=None, arguments=USUAL):
    """The down-projection if `shrink`, else the up-projection."""
    plan = plan or plan_gated(rows)
    pointers = dict.fromkeys(("x", "a"), "*bf16") | {"weights": "*fp32", "hidden": "*fp32"}
    pointers |= {f"{name}{place}": "*bf16" for name in ("y", "result", "b") for place in range(3)}
    numbers = sizes("N", "T", "D", "S", "JS", "part_width", "first", "O0", "O1", "O2")
    constants = {"PRECISION": "tf32x3", "BLOCK_N": plan.block_n, "WAITS": True}
    if shrink:
        constants |= {"BLOCK_S": plan.shrink_s, "BLOCK_D": plan.shrink_d}
        kernel, own = gated.gated_lora_shrink_kernel, 2 * plan.shrink_s * plan.shrink_d
    else:
        one_block = plan.expand_s >= STACKED_RANK
        constants |= {"BLOCK_S": plan.expand_s, "BLOCK_O": plan.expand_o, "PARTS": plan.parts}
        constants |= {"IN_PLACE": True, "SKIPS": rows > gated_launch.DECODE_ROWS, "ONE_BLOCK": one_block}
        kernel, own = gated.gated_lora_expand_kernel, 2 * plan.expand_s * plan.expand_o
        plan = plan._replace(stages=1 if one_block else plan.stages)
    facts = compiled(kernel, pointers, numbers, constants, plan, arguments)
    return facts | {"per_kb": [1024 * n * plan.warps / own for n, _ in facts["loops"]]}


# Every kernel at the sizes that its rule chooses.
PLANNED = {
    "layer_scores 1 to 16 rows": partial(layer_scores, "float32", 16),
    "layer_scores 64 rows": partial(layer_scores, "float32", 64),
    "layer_scores bfloat16 64 rows": partial(layer_scores, "bfloat16", 64),
    "layer_scores combine": partial(combine_scores, 64),
    "penalty rank 8": partial(orthogonality, "float32", 8),
    "penalty rank 32": partial(orthogonality, "float32", 32),
    "penalty rank 32, cut into chunks": partial(orthogonality, "float32", 32, chunked=True),
    "penalty rank 64": partial(orthogonality, "float32", 64),
    "penalty rank 8, output side": partial(orthogonality, "float32", 8, transposed=True),
    "penalty rank 8, history not split": partial(orthogonality, "float32", 8, history="float32"),
    "penalty bfloat16 rank 8": partial(orthogonality, "bfloat16", 8, history="bfloat16"),
    "penalty bfloat16 rank 32": partial(orthogonality, "bfloat16", 32, history="bfloat16"),
    "penalty bfloat16 rank 64": partial(orthogonality, "bfloat16", 64, history="bfloat16"),
    "gated_lora down decode": partial(gated_lora, 16, True),
    "gated_lora up decode": partial(gated_lora, 16, False),
    "gated_lora down prefill": partial(gated_lora, 4096, True),
    "gated_lora up prefill": partial(gated_lora, 4096, False),
}
SHARED_KIB = {"gated_lora up decode": 8, "gated_lora up prefill": 16, "gated_lora down decode": 24}
# The most instructions per KB: the mean of the main loops, or their sum for the penalty, which reads twice.
LIMITS = {
    "layer_scores 1 to 16 rows": 35,
    "layer_scores 64 rows": 46,
    "penalty rank 8": 54,
    "penalty rank 32": 65,
    "penalty rank 32, cut into chunks": 65,
    "gated_lora down prefill": 45,
    "gated_lora up decode": 260,
    "gated_lora up prefill": 130,
}


def instructions_per_kb(name, facts):
    """Returns the warp instructions per KB that a kernel reads from memory."""
    loops = facts.get("per_kb", [])
    total = sum(loops[:1] + loops[-1:]) if len(loops) > 1 else sum(loops)
    return total if name.startswith("penalty") else total / max(len(loops[:2]), 1)


def unusual():
    """Every kernel for the arguments that Triton compiles apart, and a history of another type."""
    results = {"penalty bfloat16 history": orthogonality("float32", 8, history="bfloat16")}
    for name, arguments in UNUSUAL.items():
        results |= {
            f"layer_scores 1 row {name}": layer_scores("float32", 1, None, arguments),
            f"layer_scores 64 rows {name}": layer_scores("float32", 64, None, arguments, halves=False),
            f"layer_scores combine {name}": combine_scores(64, arguments),
            f"penalty {name}": orthogonality("float32", 8, None, arguments),
            f"gated_lora down {name}": gated_lora(16, True, None, arguments),
            f"gated_lora up {name}": gated_lora(16, False, None, arguments),
        }
    return results


def candidates():
    """Every kernel with every plan that the tuner times beside the rule's."""
    results = {}
    for rows in (8, 64):
        for plan in variations(plan_scores(0, rows), CHANGES["layer_scores"]):
            results[f"layer_scores {rows} {plan}"] = layer_scores("float32", rows, plan)
    for rank in (8, 32):
        for plan in variations(plan_penalty(rank), CHANGES["orthogonality_penalty"]):
            results[f"penalty {rank} {plan}"] = orthogonality("float32", rank, plan)
    for rows in (16, 4096):
        for plan in variations(plan_gated(rows), CHANGES["gated_lora"]):
            for shrink in (True, False):
                results[f"gated_lora {shrink} {rows} {plan}"] = gated_lora(rows, shrink, plan)
    return results


def main(arguments=None):
    """Prints what compiling gives, or keeps it in a file beside other versions of Triton and "before"."""
    parser = argparse.ArgumentParser("python -m benchmarks.kernels.hopper", description=__doc__)
    parser.add_argument(
        "--every", action="store_true", help="unusual arguments and the tuner's plans instead"
    )
    parser.add_argument("--out", type=Path, help="file that keeps the results of the planned kernels")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = (
        {**unusual(), **candidates()} if options.every else {name: run() for name, run in PLANNED.items()}
    )
    for name, facts in results.items():
        facts["instructions_per_kb"] = round(instructions_per_kb(name, facts), 1)
    if options.out:
        kept = json.loads(options.out.read_text()) if options.out.exists() else {"now": {}}
        kept["now"][triton.__version__] = results
        options.out.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    sys.stdout.write(json.dumps(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
