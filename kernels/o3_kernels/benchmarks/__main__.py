"""The command `python -m o3_kernels.benchmarks`: measures, prints a table, keeps JSON and a plot."""

import argparse
import logging
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from o3_kernels.benchmarks.cases import OPERATIONS, Case, cases_for
from o3_kernels.benchmarks.decoder_layer import decoder_layer_case
from o3_kernels.benchmarks.measure import measure_case, measure_roofs
from o3_kernels.benchmarks.report import earlier_results, shape_text, summary_table, write_plot, write_results
from o3_kernels.tuning import device_file_name

DEFAULT_FOLDER = Path(__file__).parents[2] / "results"
DESCRIPTION = """\
Measures each operation against what a user would write otherwise.

Every variant is first compared to float64; a wrong one is not timed. Then all are timed in turn, in one
process, on inputs that no cache still holds:
  ours      the public call of o3_kernels
  official  the loop of the published code: row by row, request by request
  loop      the same, a batch at a time
  eager     the best vectorised PyTorch
  compiled  that under torch.compile(mode="max-autotune")
  base      the layers without any adapter (decoding through a whole layer)
"""
EPILOG = """\
Writes RESULTS/<device>.json and a plot beside it. Afterwards `python -m o3_kernels.benchmarks.readme` puts
the tables into README.md. Ends with 1 where a result of ours is wrong. A run of some operations or shapes
adds to the file if that was measured at the same commit, with the same software, on the same device.

examples:
  python -m o3_kernels.benchmarks                                 # everything, on the GPU if there is one
  python -m o3_kernels.benchmarks --op gated_lora --seconds 0.2   # a quick look
  python -m o3_kernels.benchmarks --shape "roberta-large B=8"     # a part of a run that would take too long
  python -m o3_kernels.benchmarks --tune                          # first find this GPU's best block sizes
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark and returns 0, or 1 where one of our results is wrong."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = _options(arguments)
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    cases = [case for operation in options.op or OPERATIONS for case in _cases(operation, device)]
    cases = [case for case in cases if options.shape in shape_text(case.name, case.sizes)]
    if options.tune:
        from o3_kernels.benchmarks.tune import tune_cases

        sys.stderr.write(f"{tune_cases(cases, device)}\n")
    facts = _facts(device)
    path = options.out / f"{device_file_name(facts['device'])}.json"
    partial = bool(options.op or options.shape)
    results = (earlier_results(path, facts) if partial else None) or {
        **facts,
        "roofs": measure_roofs(device),
        "cases": [],
    }
    for case in cases:
        result = measure_case(case, device, options.seconds, options.compile)
        _add_rates(result, results["roofs"])
        write_results(path, results, result)  # one by one, so that a run that is stopped loses nothing
        sys.stderr.write(f"{case.operation} {shape_text(case.name, case.sizes)}\n")
    sys.stdout.write(summary_table(results))
    plot = write_plot(path, results)
    sys.stdout.write(f"{path}\n" + (f"{plot}\n" if plot else ""))
    return 0 if all("ours" in case["median_ms"] for case in results["cases"]) else 1


def _cases(operation: str, device: torch.device) -> list[Case]:
    """Returns the shapes of an operation; the whole decoder layer needs a GPU's memory and speed."""
    cases = cases_for(operation, device)
    if operation == "gated_lora" and device.type == "cuda":
        cases += [decoder_layer_case(B=16, K=K, R=8, device=device) for K in (1, 16, 64)]
    return cases


def _options(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        "python -m o3_kernels.benchmarks",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    default = "cuda" if torch.cuda.is_available() else "cpu"
    add(
        "--op", action="append", choices=OPERATIONS, metavar="OP", help=", ".join(OPERATIONS) + "; may repeat"
    )
    add("--shape", default="", metavar="TEXT", help="only shapes with this text in their line of the table")
    add("--out", type=Path, default=DEFAULT_FOLDER, metavar="RESULTS", help="folder of JSON and plot")
    add("--device", choices=("cpu", "cuda"), default=default, help=f"here {default} unless told")
    add("--threads", type=int, metavar="N", help="threads of a CPU run; torch's own number unless told")
    add("--seconds", type=float, default=1.0, metavar="S", help="for the rounds of one shape; 1 unless told")
    add("--tune", action="store_true", help="first measure block sizes and keep the best; needs a GPU")
    what = "with or without torch.compile; on a GPU with it unless told"
    add("--compile", action=argparse.BooleanOptionalAction, help=what)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device")
    if options.tune and options.device != "cuda":
        parser.error("--tune needs --device cuda: a CPU has no block sizes to choose")
    if options.compile is None:
        options.compile = options.device == "cuda"
    return options


def _facts(device: torch.device) -> dict[str, Any]:
    """Returns what a reader needs to run the same again."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}"
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": _git("rev-parse", "HEAD"),
        "clean": _git("status", "--porcelain", "--", "..") == "",
    }


def _git(*arguments: str) -> str | None:
    """Returns what git says about the folder of this file; None without git or a repository."""
    git = shutil.which("git")
    if not git:
        return None
    command = [git, "-C", str(Path(__file__).parent), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed arguments
    return done.stdout.strip() if done.returncode == 0 else None


def _add_rates(result: dict[str, Any], roofs: dict[str, float]) -> None:
    """Adds speed-ups, shares of the roofs, and the bound: the time that the least bytes or FLOPs take."""
    median = result["median_ms"]
    if "ours" not in median:
        return
    seconds = median["ours"] / 1e3
    matrix_rate = roofs[f"matmul_{result['dtype']}_tflop_s"]
    result["speedup"] = {name: value / median["ours"] for name, value in median.items() if name != "ours"}
    result["bandwidth_fraction"] = result["bytes"] / seconds / 1e9 / roofs["copy_gb_s"]
    result["matrix_fraction"] = result["flops"] / seconds / 1e12 / matrix_rate
    result["gflop_s"] = result["flops"] / seconds / 1e9
    result["bound_ms"] = 1e3 * max(
        result["bytes"] / roofs["copy_gb_s"] / 1e9, result["flops"] / matrix_rate / 1e12
    )


if __name__ == "__main__":
    sys.exit(main())
