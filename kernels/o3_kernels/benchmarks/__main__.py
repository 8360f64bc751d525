"""The command `python -m o3_kernels.benchmarks`: measures, prints a table, keeps JSON and a plot."""

import argparse
import logging
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from o3_kernels.benchmarks.cases import OPERATIONS, Case, cases_for
from o3_kernels.benchmarks.decoder_layer import decoder_layer_case
from o3_kernels.benchmarks.measure import measure_case, measure_roofs
from o3_kernels.benchmarks.report import summary_table, write_plot, write_results

DEFAULT_FOLDER = Path(__file__).parents[2] / "results"


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark and returns 0, or 1 where one of our results is wrong."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = _parser().parse_args(arguments)
    device = torch.device(options.device)
    compile_too = options.compile if options.compile is not None else device.type == "cuda"
    if options.threads:
        torch.set_num_threads(options.threads)
    results: dict[str, Any] = {**_facts(device), "roofs": measure_roofs(device), "cases": []}
    for operation in options.op or OPERATIONS:
        for case in _cases(operation, device):
            result = measure_case(case, device, options.seconds, compile_too)
            _add_rates(result, results["roofs"])
            results["cases"].append(result)
            sys.stderr.write(f"{operation} {case.name} {case.sizes}\n")
    sys.stdout.write(summary_table(results))
    path = write_results(options.out, _file_name(results["device"]), results)
    plot = write_plot(path, results)
    sys.stdout.write(f"{path}\n" + (f"{plot}\n" if plot else ""))
    return 0 if all("ours" in case["median_ms"] for case in results["cases"]) else 1


def _cases(operation: str, device: torch.device) -> list[Case]:
    """Returns the shapes of an operation; the whole decoder layer needs a GPU's memory and speed."""
    cases = cases_for(operation, device)
    if operation == "gated_lora" and device.type == "cuda":
        cases += [decoder_layer_case(B=16, K=K, R=8, device=device) for K in (1, 16, 64)]
    return cases


def _parser() -> argparse.ArgumentParser:
    """Describes the command line."""
    parser = argparse.ArgumentParser("python -m o3_kernels.benchmarks", description=__doc__)
    parser.add_argument("--op", action="append", choices=OPERATIONS, help="only this operation; may repeat")
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, help="folder of the JSON and the plot")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=default)
    parser.add_argument("--threads", type=int, help="threads of a CPU run")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for the rounds of one shape")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="also measure torch.compile(mode='max-autotune'); by default on a GPU only",
    )
    return parser


def _facts(device: torch.device) -> dict[str, Any]:
    """Returns what a reader needs to run the same again."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}"
    git = shutil.which("git")
    commit = None
    if git:
        command = [git, "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None  # noqa: S603
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit,
    }


def _add_rates(result: dict[str, Any], roofs: dict[str, float]) -> None:
    """Adds speed-ups and the shares of the roofs that ours reaches."""
    median = result["median_ms"]
    if "ours" not in median:
        return
    seconds = median["ours"] / 1e3
    result["speedup"] = {name: value / median["ours"] for name, value in median.items() if name != "ours"}
    result["bandwidth_fraction"] = result["bytes"] / seconds / 1e9 / roofs["copy_gb_s"]
    result["gflop_s"] = result["flops"] / seconds / 1e9


def _file_name(device: str) -> str:
    """Returns the device's name as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
