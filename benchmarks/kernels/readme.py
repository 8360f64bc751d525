"""Writes the tables of docs/results/kernels.md: `python -m benchmarks.kernels.readme`."""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.kernels.report import OTHERS

ROOT = Path(__file__).parents[2]
PAGE = "docs/results/kernels.md"
RESULTS = ROOT / "kernels" / "results"
COMPILED = ROOT / "results" / "kernels_compiled.json"
BEGIN = "<!-- begin: written by python -m benchmarks.kernels.readme -->"
BEGIN_COMPILED = "<!-- begin: compiled, written by python -m benchmarks.kernels.readme -->"
END = "<!-- end -->"
SHOWN_SIZES = "BTKPR"
LEFT_OUT = {"B": {512}, "K": {4, 64}, "P": {64}}  # so that a GPU's table stays readable; the JSON has them


def main() -> int:
    """Puts the tables of all result files into docs/results/kernels.md."""
    page = ROOT / PAGE
    page.write_text(with_all_tables(page.read_text()))
    return 0


def with_all_tables(text: str) -> str:
    """Returns the page with the tables of the committed results."""
    text = with_tables(text, markdown_tables(RESULTS))
    return with_tables(text, compiled_table(json.loads(COMPILED.read_text())), BEGIN_COMPILED)


def with_tables(text: str, tables: str, begin_mark: str = BEGIN) -> str:
    """Returns a text with the tables between its two marks.

    Raises:
        ValueError: the marks are missing.
    """
    head, begin, rest = text.partition(begin_mark)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the text has no lines '{begin_mark}' and '{END}'")
    return f"{head}{begin_mark}\n{tables}{END}{tail}"


def compiled_table(results: dict[str, Any]) -> str:
    """Returns what `benchmarks.kernels.hopper` found, before the kernels read halves and now.

    Now are the figures of the newest Triton; the last column has those of the older versions, oldest first.
    """
    columns = {"instructions_per_kb": 1, "registers": 1, "stack_bytes": 1, "shared_bytes": 1024}
    *older, newest = sorted(results["now"], key=lambda version: [int(part) for part in version.split(".")])
    rows = [
        "| kernel | instructions per KB | registers | spilled bytes | shared KiB | per KB, spilled by Triton "
        f"{', '.join(older)} |",
        "|---|---|---|---|---|---|",
    ]
    now = results["now"][newest]
    for name in now:
        both = [facts[name] for facts in (results["before"], now) if name in facts]
        cells = [" -> ".join(f"{facts[key] / unit:.0f}" for facts in both) for key, unit in columns.items()]
        others = [results["now"][version][name] for version in older]
        cells.append(", ".join(f"{facts['instructions_per_kb']:.0f}" for facts in others))
        cells[-1] += f"; {max((facts['stack_bytes'] for facts in others), default=0)}"
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n" + "\n".join(rows) + "\n\n"


def markdown_tables(folder: Path) -> str:
    """Returns one table for each result file of a folder."""
    return "".join(_table(json.loads(path.read_text())) for path in sorted(folder.glob("*.json")))


def _table(results: dict[str, Any]) -> str:
    cases = [case for case in results["cases"] if "ours" in case["median_ms"] and is_shown(case["sizes"])]
    others = [name for name in OTHERS if any(name in case["median_ms"] for case in cases)]
    roofs = results["roofs"]
    threads = f", {results['threads']} thread" + "s" * (results["threads"] > 1)
    device = results["device"] + threads * results["device"].startswith("cpu")
    hosts = any(case["host_ms"]["ours"] is not None for case in cases)
    head = ["operation", "shape", "ours ms", *["host ms"] * hosts, *others, "most", "of the bound"]
    rows = [
        f"\n{device}, torch {results['torch']}, copies at {roofs['copy_gb_s']:.0f} GB/s, float32 products at "
        f"{1e3 * roofs['matmul_float32_tflop_s']:.0f} GFLOP/s:\n",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(_cells(case, others, hosts)) + " |" for case in cases),
    ]
    return "\n".join(rows) + "\n\n"


def is_shown(sizes: dict[str, int]) -> bool:
    """Tells whether a shape belongs in the table."""
    return not any(sizes.get(name) in values for name, values in LEFT_OUT.items())


def _cells(case: dict[str, Any], others: list[str], hosts: bool) -> list[str]:
    """Returns the cells of one case."""
    median, bound = case["median_ms"], case["bound_ms"]
    sizes = " ".join(f"{name}={size}" for name, size in case["sizes"].items() if name in SHOWN_SIZES)
    factors = [f"{median[name] / median['ours']:.2f}x" if name in median else "" for name in others]
    most = f"{median['official'] / bound:.1f}x" if "official" in median else ""
    share = f"{100 * bound / median['ours']:.0f} %"
    host = [f"{case['host_ms']['ours']:.2f}"] if hosts else []
    shape = f"{case['name']}, {sizes}" + ", tuned" * bool(case.get("tuned"))
    return [case["operation"], shape, f"{median['ours']:.2f}", *host, *factors, most, share]


if __name__ == "__main__":
    sys.exit(main())
