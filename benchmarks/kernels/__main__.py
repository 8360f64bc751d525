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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import o3_kernels
from benchmarks.kernels.cases import OPERATIONS, Case, cases_for
from benchmarks.kernels.decoder_layer import decoder_layer_case
from benchmarks.kernels.measure import measure_case, measure_roofs
from benchmarks.kernels.readme import ROOT
from benchmarks.kernels.report import (
    earlier_results,
    is_measured,
    put_result,
    shape_text,
    summary_table,
    write_plot,
    write_results,
)
from benchmarks.kernels.tune import tune_cases
from o3_kernels import tuning
from o3_kernels.checks import runs_on_triton
from o3_kernels.tuning import device_file_name

PACKAGE = Path(o3_kernels.__file__).parent
TESTS = ROOT / "tests" / "kernels"
TESTERS = ("pytest", "pytest_timeout", "xdist")
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
  vllm      vLLM's LoRA kernels, one adapter a row, where vLLM is installed
  sglang    SGLang's chunked LoRA kernels, the same, where SGLang is installed
  faiss     FAISS's nearest centroid, without distances, where FAISS for GPUs is installed
"""
EPILOG = """\
Needs torch and triton, no installation (PYTHONPATH=kernels:.) and no git. Prints a table, and writes
nothing but DIR/<device>.json, a plot beside it and DIR/tuned/<device>.json, if --out or --resume names DIR.
Results in DIR of the same source, software and device are kept and added to; others are put aside. A shape
that fails or is wrong is noted, the others are measured, and the command ends with 1. With --minutes it ends
with 3 until all is done: repeat it with --resume DIR.

examples:
  python -m benchmarks.kernels                                        # every shape, nothing is written
  python -m benchmarks.kernels --everything --minutes 8 --resume DIR  # on a GPU: until it ends with 0
  python -m benchmarks.kernels --op gated_lora --seconds 0.2          # a quick look
  python -m benchmarks.kernels --shape "roberta-large B=8" --out DIR  # some shapes
  python -m benchmarks.kernels --op gated_lora --tune --resume DIR    # block sizes of one operation
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark and returns 0, 1 where something failed or was wrong, or 3 where time ran out."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = read_options(arguments)
    late = partial(_is_past, time.monotonic() + 60 * options.minutes)
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    operations = options.op or OPERATIONS
    cases = [case for operation in operations for case in _cases(operation, device)]
    cases = [case for case in cases if options.shape in shape_text(case.name, case.sizes)]
    facts = _facts(device, options.commit)
    folder = options.resume or options.out
    path = folder / f"{device_file_name(facts['device'])}.json" if folder else None
    results = (earlier_results(path, facts) if path else None) or {**facts, "cases": []}
    if "roofs" not in results:
        results["roofs"] = measure_roofs(device)
    if options.everything:
        _test_on_gpu(results, path)
    wanted = [case for case in cases if not (options.resume and is_measured(results, vars(case)))]
    left = _measure(wanted, results, path, device, options, late)
    if options.tune and not left:
        left = _tune(cases, operations, results, path, device, options, late)
    sys.stdout.write(summary_table(results))
    if path:
        plot = write_plot(path, results)
        sys.stdout.write(f"{path}\n" + (f"{plot}\n" if plot else ""))
    failed = [case for case in results["cases"] if "ours" not in case["median_ms"]]
    for case in failed:
        name = f"{case['operation']} {shape_text(case['name'], case['sizes'])}"
        sys.stderr.write(f"failed: {name}: {case.get('error', 'wrong')}\n")
    if left:
        sys.stderr.write(f"out of time with {left} shapes left: the same command with --resume goes on\n")
        return UNFINISHED
    return WRONG if failed or results.get("tests") == "failed" else DONE


def _is_past(end: float) -> bool:
    """Tells whether a time of the monotonic clock has gone by."""
    return bool(time.monotonic() > end)


def _test_on_gpu(results: dict[str, Any], path: Path | None) -> None:
    """Runs the tests that need a GPU, unless they were run before, and notes how they ended."""
    if "tests" in results:
        return
    missing = [name for name in TESTERS if find_spec(name) is None]
    if missing:
        results["tests"] = f"not run without {' and '.join(missing)}"
        return
    # the other tests need packages that a bare machine lacks
    tests = [path for path in TESTS.glob("test_*.py") if "pytest.mark.gpu" in path.read_text()]
    options = ["-m", "gpu", "-p", "no:cacheprovider", "--timeout=3600"]
    command = [sys.executable, "-m", "pytest", *options, *map(str, sorted(tests))]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    results["tests"] = "failed" if code else "passed"
    if path:
        write_results(path, results)


def _measure(
    cases: Sequence[Case],
    results: dict[str, Any],
    path: Path | None,
    device: torch.device,
    options: argparse.Namespace,
    late: Callable[[], bool],
    tuned: bool = False,
) -> int:
    """Measures cases, writes each as soon as it is known; returns how many were left when time ran out."""
    for place, case in enumerate(cases):
        if late():
            return len(cases) - place
        shape = f"{case.operation} {shape_text(case.name, case.sizes)}"
        try:
            result = measure_case(case, device, options.seconds, options.compile)
        except Exception as error:
            logging.exception("%s failed, the others are measured", shape)
            result = {"operation": case.operation, "name": case.name, "sizes": case.sizes, "median_ms": {}}
            result["error"] = f"{type(error).__name__}: {error}"[:500]
            if device.type == "cuda":
                torch.cuda.empty_cache()
        result |= {"tuned": True} if tuned else {}
        _add_rates(result, results["roofs"])
        put_result(results, result)
        if path:
            write_results(path, results)
        sys.stderr.write(f"{shape}\n")
    return 0


def _tune(
    cases: Sequence[Case],
    operations: Sequence[str],
    results: dict[str, Any],
    path: Path | None,
    device: torch.device,
    options: argparse.Namespace,
    late: Callable[[], bool],
) -> int:
    """Finds block sizes op by op in DIR/tuned and measures again beside the rule's; returns what was left."""
    assert path is not None, "--tune needs a folder"
    tuning.TABLES = path.parent / "tuned"
    left = 0
    for operation in operations:
        own = [case for case in cases if case.operation == operation]
        tune_cases(own, device, tuning.TABLES, again=not options.resume, late=late)
        own = [
            case
            for case in own
            if not (options.resume and is_measured(results, {**vars(case), "tuned": True}))
        ]
        left += _measure(own, results, path, device, options, late, tuned=True)
    return left


def _cases(operation: str, device: torch.device) -> list[Case]:
    """Returns the shapes of an operation; the whole decoder layer needs a GPU's memory and speed."""
    cases = cases_for(operation, device)
    if operation == "gated_lora" and device.type == "cuda":
        cases += [decoder_layer_case(B=16, K=K, R=8, device=device) for K in (1, 16, 64)]
    return cases


def read_options(arguments: list[str] | None) -> argparse.Namespace:
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
    add("--out", type=Path, metavar="DIR", help="folder of JSON and plot; nothing is written without one")
    add("--resume", type=Path, metavar="DIR", help="the same, and measure only what it does not hold")
    add("--device", choices=("cpu", "cuda"), default=default, help=f"here {default} by default")
    add("--threads", type=int, metavar="N", help="threads of a CPU run; torch's own number by default")
    add("--seconds", type=float, default=1.0, metavar="S", help="for the rounds of one shape; default 1")
    add("--tune", action="store_true", help="after measuring, find block sizes and measure them; needs a GPU")
    add("--everything", action="store_true", help="tests on the GPU, every shape, then --tune")
    add("--minutes", type=float, default=math.inf, metavar="M", help="start no shape after so many minutes")
    add("--commit", metavar="HASH", help="what is measured, where git cannot tell")
    what = "with or without torch.compile; on a GPU with it by default"
    add("--compile", action=argparse.BooleanOptionalAction, help=what)
    options = parser.parse_args(arguments)
    options.tune = options.tune or options.everything
    refused = ""
    if options.device == "cuda" and not torch.cuda.is_available():
        refused = "--device cuda: torch sees no CUDA device"
    elif options.device == "cuda" and not runs_on_triton([]):
        refused = "--device cuda: what is measured is Triton, which is missing or left out by O3_KERNELS"
    elif options.tune and options.device != "cuda":
        refused = "--tune and --everything need a CUDA device; here torch uses the CPU"
    elif options.tune and not (options.out or options.resume):
        refused = "--tune and --everything need --out or --resume: the folder of what they find"
    if refused:  # in one line, without the usage
        parser.exit(2, f"{parser.prog}: error: {refused}\n")
    if options.compile is None:
        options.compile = options.device == "cuda"
    return options


def _facts(device: torch.device, commit: str | None) -> dict[str, Any]:
    """Returns what a reader needs to run the same again."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}"
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "code": _code_digest(),
        "commit": commit or _git("rev-parse", "HEAD"),
        "clean": _git("status", "--porcelain", "--", str(PACKAGE)) == "",
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
