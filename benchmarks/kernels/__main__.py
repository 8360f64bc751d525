"""The command `python -m benchmarks.kernels`: measures, prints a table, keeps JSON and a plot."""

import argparse
import hashlib
import logging
import math
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

import o3_kernels
from benchmarks.kernels.cases import OPERATIONS, Case, cases_for
from benchmarks.kernels.decoder_layer import decoder_layer_case
from benchmarks.kernels.measure import measure_case, measure_roofs
from benchmarks.kernels.readme import ROOT
from benchmarks.kernels.readme import main as write_tables
from benchmarks.kernels.report import (
    earlier_results,
    is_measured,
    put_result,
    shape_text,
    summary_table,
    write_plot,
    write_results,
)
from benchmarks.kernels.tune import WrongResultError, tune_cases
from o3_kernels.checks import runs_on_triton
from o3_kernels.tuning import TABLES, device_file_name

PACKAGE = Path(o3_kernels.__file__).parent
DEFAULT_FOLDER = ROOT / "kernels" / "results"
DONE, WRONG, UNFINISHED = 0, 1, 3  # what the command ends with; 2 is argparse's
DESCRIPTION = """\
Measures each operation against what a user would write otherwise.

Every variant is first compared to float64; a wrong one is not timed. Then all are timed in turn, in one
process, on inputs that no cache still holds:
  ours      the public call of o3_kernels
  official  the loop of the published code: row by row, request by request
  loop      the same, a batch at a time
  eager     the best vectorised PyTorch
  compiled  that under torch.compile's max-autotune, without CUDA graphs, which would copy all inputs
  base      the layers without any adapter (decoding through a whole layer)
"""
EPILOG = """\
Writes RESULTS/<device>.json and a plot beside it. Afterwards `python -m benchmarks.kernels.readme` puts
the tables into docs/results/kernels.md. Ends with 1 as soon as a result of ours is wrong. A run of some
operations or shapes adds to the file if that was measured with the same source and software on the same
device.

--everything is all that a GPU is needed for: its tests, block sizes (o3_kernels/tuned/<device>.json), every
shape, and the tables. It may be stopped at any time; the same command goes on where it was. --minutes stops
it between two shapes; it ends with 3 until all is done.

examples:
  python -m benchmarks.kernels                                # every shape, on the GPU if there is one
  python -m benchmarks.kernels --everything --minutes 8       # on a borrowed GPU: until it ends with 0
  python -m benchmarks.kernels --op gated_lora --seconds 0.2  # a quick look
  python -m benchmarks.kernels --shape "roberta-large B=8"    # a part of a run that would take too long
  python -m benchmarks.kernels --tune                         # first find this GPU's block sizes, all anew
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark and returns 0, 1 where one of our results is wrong, or 3 where time ran out."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = _options(arguments)
    late = partial(_is_past, time.monotonic() + 60 * options.minutes)
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    cases = [case for operation in options.op or OPERATIONS for case in _cases(operation, device)]
    cases = [case for case in cases if options.shape in shape_text(case.name, case.sizes)]
    facts = _facts(device, options.commit)
    path = options.out / f"{device_file_name(facts['device'])}.json"
    goes_on = bool(options.everything or options.op or options.shape)
    results = earlier_results(path, facts) if goes_on else None
    results = results or {**facts, "roofs": measure_roofs(device), "cases": []}
    try:
        if options.everything:
            _test_on_gpu(results, path)
        if options.everything or options.tune:
            tune_cases(cases, device, again=options.tune, late=late)
        _note_block_sizes(results)
        if options.everything:
            cases = [case for case in cases if not is_measured(results, vars(case))]
        left = _measure(cases, results, path, device, options, late)
    except WrongResultError as error:
        sys.stderr.write(f"stopped, nothing further is measured: {error}\n")
        return WRONG
    sys.stdout.write(summary_table(results))
    plot = write_plot(path, results)
    sys.stdout.write(f"{path}\n" + (f"{plot}\n" if plot else ""))
    if options.everything and options.out == DEFAULT_FOLDER:
        write_tables()
    if left:
        sys.stderr.write(f"out of time with {left} shapes left: the same command goes on from here\n")
    return UNFINISHED if left else DONE


def _is_past(end: float) -> bool:
    """Tells whether a time of the monotonic clock has gone by."""
    return bool(time.monotonic() > end)


def _test_on_gpu(results: dict[str, Any], path: Path) -> None:
    """Runs the tests that need a GPU, unless they passed before; where one fails, says so and stops."""
    if results.get("tests") == "passed":
        return
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "--timeout=3600", str(ROOT / "tests" / "kernels")]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise WrongResultError("the tests on the GPU failed, see above")
    results["tests"] = "passed"
    write_results(path, results)


def _note_block_sizes(results: dict[str, Any]) -> None:
    """Keeps a digest of the device's measured block sizes; cases measured under other ones are dropped."""
    table = TABLES / f"{device_file_name(results['device'])}.json"
    digest = hashlib.sha256(table.read_bytes()).hexdigest() if table.exists() else None
    if results.get("block_sizes") != digest:
        results["block_sizes"], results["cases"] = digest, []


def _measure(
    cases: Sequence[Case],
    results: dict[str, Any],
    path: Path,
    device: torch.device,
    options: argparse.Namespace,
    late: Callable[[], bool],
) -> int:
    """Measures cases, writes each as soon as it is known; returns how many were left when time ran out."""
    for place, case in enumerate(cases):
        if late():
            return len(cases) - place
        result = measure_case(case, device, options.seconds, options.compile)
        _add_rates(result, results["roofs"])
        put_result(results, result)
        write_results(path, results)
        shape = f"{case.operation} {shape_text(case.name, case.sizes)}"
        if "ours" not in result["median_ms"]:
            error = result["relative_error"]["ours"]
            raise WrongResultError(f"{shape}: ours is wrong by {error:g}, allowed are {case.tolerance:g}")
        sys.stderr.write(f"{shape}\n")
    return 0


def _cases(operation: str, device: torch.device) -> list[Case]:
    """Returns the shapes of an operation; the whole decoder layer needs a GPU's memory and speed."""
    cases = cases_for(operation, device)
    if operation == "gated_lora" and device.type == "cuda":
        cases += [decoder_layer_case(B=16, K=K, R=8, device=device) for K in (1, 16, 64)]
    return cases


def _options(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.kernels",
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
    add("--everything", action="store_true", help="tests, what is missing of block sizes and shapes, tables")
    add("--minutes", type=float, default=math.inf, metavar="M", help="start no shape after so many minutes")
    add("--commit", metavar="HASH", help="what is measured, where git cannot tell")
    what = "with or without torch.compile; on a GPU with it unless told"
    add("--compile", action=argparse.BooleanOptionalAction, help=what)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device")
    if options.device == "cuda" and not runs_on_triton([]):
        parser.error("--device cuda: what is measured is Triton, which is missing or left out by O3_KERNELS")
    for name in ("tune", "everything"):
        if getattr(options, name) and options.device != "cuda":
            parser.error(f"--{name} needs a CUDA device, and torch is to use the CPU here")
    if options.compile is None:
        options.compile = options.device == "cuda"
    return options


def _facts(device: torch.device, commit: str | None) -> dict[str, Any]:
    """Returns what a reader needs to run the same again; block sizes have a digest of their own."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}"
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "code": _code_digest(),
        "commit": commit or _git("rev-parse", "HEAD"),
        "clean": _git("status", "--porcelain", "--", "..", ":(exclude)../tuned") == "",
    }


def _code_digest() -> str:
    """Returns a digest of the package's source: results of one source add up, whatever else was committed."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _git(*arguments: str) -> str | None:
    """Returns what git says about the folder of this file; None without git or a repository."""
    git = shutil.which("git")
    if not git:
        return None
    command = [git, "-C", str(Path(__file__).parent), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
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
