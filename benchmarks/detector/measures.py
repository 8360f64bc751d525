"""What a detector benchmark reports of scores and weights; scores have one sign, fixed by definition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from o3_lightning.metrics.aggregate import over_seeds

__all__ = ["summarise", "table_rows"]

DIGITS = 6
PAIRS = ("held_out|near", "held_out|adjacent", "held_out|far", "paraphrase|near")
WEIGHTS = ("forget", "paraphrase", "held_out", "near", "adjacent", "mid", "far")


def summarise(rows: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Returns {split: {measure: {"mean", "std", "seeds"}}} of one {split: {measure: value}} a seed.

    `std` is the deviation of the sample, as in studies; 0 of a single seed.
    """
    summary: dict[str, Any] = {}
    for split in rows[0]:
        for measure in rows[0][split]:
            values = [row[split][measure] for row in rows if split in row]
            mean, deviation = over_seeds(values)
            summary.setdefault(split, {})[measure] = {
                "mean": round(mean, DIGITS),
                "std": round(deviation, DIGITS),
                "seeds": [round(value, DIGITS) for value in values],
            }
    return summary


def table_rows(results: Mapping[str, Any]) -> Iterator[str]:
    """Yields a Markdown table: a line a task and detector, AUROC / FPR95 in % and mean weights.

    Args:
        results: of `run_detector_benchmark`.
    """
    yield "AUROC / FPR95 in %, mean ± deviation over the seeds; last column the mean weights."
    yield ""
    names = [name.replace("_", "-").replace("|", " against ") for name in PAIRS]
    yield f"| task | detector | {' | '.join(names)} | {' / '.join(WEIGHTS).replace('_', '-')} |"
    yield "| --- " * (len(PAIRS) + 3) + "|"
    for task, by_detector in results["tasks"].items():
        role = "" if results["roles"][task] == "development" else " *"
        for label, splits in by_detector.items():
            pairs = [pair_cell(splits.get(pair)) for pair in PAIRS]
            weights = [weight_cell(splits.get(name)) for name in WEIGHTS]
            yield f"| {task}{role} | {label} | {' | '.join(pairs)} | {' / '.join(weights)} |"
    yield ""
    yield "\\* report only: no setting was chosen on this task."


def pair_cell(measures: Mapping[str, Any] | None) -> str:
    """Returns "AUROC ± deviation / FPR95 ± deviation", or a dash."""
    if measures is None:
        return "-"
    cells = [measures[name] for name in ("auroc", "fpr95")]
    return " / ".join(f"{100 * cell['mean']:.1f} ± {100 * cell['std']:.1f}" for cell in cells)


def weight_cell(measures: Mapping[str, Any] | None) -> str:
    """Returns a mean weight, or a dash."""
    return "-" if measures is None else f"{measures['mean_weight']['mean']:.3f}".removeprefix("0")
