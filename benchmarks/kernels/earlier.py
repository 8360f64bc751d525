"""Compares the CPU time of an earlier `o3_kernels` with that of the present one.

Both run in one process, in another order each round, on one thread, in processor time.
"""

import argparse
import importlib
import json
import random
import statistics
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import o3_kernels
from benchmarks.kernels import cases
from benchmarks.kernels.__main__ import _git
from benchmarks.kernels.measure import time_ms
from benchmarks.kernels.report import shape_text

CALLS = ("layer_scores", "orthogonality_penalty", "gated_lora")
CPU = torch.device("cpu")
MOST_BYTES = 1 << 30  # of inputs and results
DESCRIPTION = "Compares an earlier o3_kernels with the present one on a CPU, in one process."
EPILOG = """example:
  git worktree add ../earlier COMMIT
  python -m benchmarks.kernels.earlier ../earlier/kernels --commit COMMIT --out results/kernels_earlier.json
"""


def main(arguments: list[str] | None = None) -> int:
    """Prints each shape's quotient of the medians, now over earlier, and writes all figures."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.kernels.earlier",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="folder that holds the earlier o3_kernels")
    parser.add_argument("--out", type=Path, required=True, help="JSON file, written after each shape")
    parser.add_argument("--commit", required=True, help="commit of the earlier package")
    parser.add_argument("--rounds", type=int, default=60, help="calls of each per shape; default 60")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    packages = {"earlier": _earlier(options.folder), "now": o3_kernels}
    results: dict[str, Any] = {
        "earlier": options.commit,
        "now": _git("rev-parse", "HEAD"),
        "torch": torch.__version__,
        "shapes": {},
    }
    shapes = [case for operation in cases.OPERATIONS for case in cases.cases_for(operation, CPU)]
    for case in (case for case in shapes if case.bytes <= MOST_BYTES):
        name = f"{case.operation} {shape_text(case.name, case.sizes)}"
        results["shapes"][name] = _compare(case, packages, options.rounds)
        options.out.write_text(json.dumps(results, indent=1) + "\n")
        sys.stdout.write(f"{name}: {results['shapes'][name]['now_over_earlier']}\n")
    return 0


def _earlier(folder: Path) -> ModuleType:
    """Imports the package in the folder beside the present one, which stays what `import` finds."""
    present = {
        name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "o3_kernels"
    }
    sys.path.insert(0, str(folder))
    try:
        earlier = importlib.import_module("o3_kernels")
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] == "o3_kernels"]:
            del sys.modules[name]
        sys.modules |= present
    assert Path(str(earlier.__file__)).is_relative_to(folder.resolve())
    return earlier


def _compare(case: cases.Case, packages: dict[str, ModuleType], rounds: int) -> dict[str, Any]:
    """Returns medians and quartiles in ms, and the quotient of the medians."""
    inputs, shuffled = case.make(0), random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in packages}
    for turn in range(rounds + 1):
        for name in shuffled.sample(list(packages), len(packages)):
            for call in CALLS:
                setattr(cases, call, getattr(packages[name], call))
            value = time_ms(lambda: case.variants["ours"](*inputs), CPU)
            if turn:  # the first call also reads code and memory
                times[name].append(value)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "now_over_earlier": round(medians["now"] / medians["earlier"], 3),
        "median_ms": {name: round(value, 4) for name, value in medians.items()},
        "quartiles_ms": {
            name: [round(value, 4) for value in statistics.quantiles(values, n=4)[::2]]
            for name, values in times.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
