"""Writes the tables of docs/results/kernels.md: `python -m benchmarks.kernels.readme`."""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.kernels.report import OTHERS

__all__ = ["main", "markdown_tables", "with_tables"]

ROOT = Path(__file__).parents[2]
PAGE = "docs/results/kernels.md"
RESULTS = ROOT / "kernels" / "results"
BEGIN = "<!-- begin: written by python -m benchmarks.kernels.readme -->"
END = "<!-- end -->"
SHOWN_SIZES = "BTKPR"
LEFT_OUT = {"B": {512}, "K": {4, 64}, "P": {64}}  # so that a GPU's table stays readable; the JSON has them


def main() -> int:
    """Puts the tables of all result files into docs/results/kernels.md."""
    page = ROOT / PAGE
    page.write_text(with_tables(page.read_text(), markdown_tables(RESULTS)))
    return 0


def with_tables(text: str, tables: str) -> str:
    """Returns a text with the tables between its two marks.

    Raises:
        ValueError: the marks are missing.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the text has no lines '{BEGIN}' and '{END}'")
    return f"{head}{BEGIN}\n{tables}{END}{tail}"


def markdown_tables(folder: Path) -> str:
    """Returns one table for each result file of a folder."""
    return "".join(_table(json.loads(path.read_text())) for path in sorted(folder.glob("*.json")))


def _table(results: dict[str, Any]) -> str:
    cases = [case for case in results["cases"] if "ours" in case["median_ms"] and _is_shown(case["sizes"])]
    others = [name for name in OTHERS if any(name in case["median_ms"] for case in cases)]
    roofs = results["roofs"]
    threads = f", {results['threads']} thread" + "s" * (results["threads"] > 1)
    device = results["device"] + threads * results["device"].startswith("cpu")
    head = ["operation", "shape", "ours ms", *others, "most", "of the bound"]
    rows = [
        f"\n{device}, torch {results['torch']}, copies at {roofs['copy_gb_s']:.0f} GB/s, float32 products at "
        f"{1e3 * roofs['matmul_float32_tflop_s']:.0f} GFLOP/s:\n",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(_cells(case, others)) + " |" for case in cases),
    ]
    return "\n".join(rows) + "\n\n"


def _is_shown(sizes: dict[str, int]) -> bool:
    """Tells whether a shape belongs in the table."""
    return not any(sizes.get(name) in values for name, values in LEFT_OUT.items())


def _cells(case: dict[str, Any], others: list[str]) -> list[str]:
    """Returns the cells of one case."""
    median, bound = case["median_ms"], case["bound_ms"]
    sizes = " ".join(f"{name}={size}" for name, size in case["sizes"].items() if name in SHOWN_SIZES)
    factors = [f"{median[name] / median['ours']:.2f}x" if name in median else "" for name in others]
    most = f"{median['official'] / bound:.1f}x" if "official" in median else ""
    share = f"{100 * bound / median['ours']:.0f} %"
    return [case["operation"], f"{case['name']}, {sizes}", f"{median['ours']:.2f}", *factors, most, share]


if __name__ == "__main__":
    sys.exit(main())
