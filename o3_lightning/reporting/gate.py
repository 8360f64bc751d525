"""Sections about the gate: histograms of weights, its errors, and the detectors' separation."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from o3_lightning.common.plain import mean_of
from o3_lightning.metrics.detection import HALF
from o3_lightning.reporting.blocks import Cell, Heat, Section, Table, few_then_fold, section
from o3_lightning.reporting.colours import heat_step
from o3_lightning.reporting.formatting import OWN_SPLITS, fraction, is_number, name_of

BINS = 20
SHOWN = 3  # requests whose tables are open
LOWEST = 5  # least height of a bar in percent, so that one prompt is visible
STRIP = Markup('<div class="strip" role="img" aria-label="{}">{}</div>')
BAR = Markup('<span style="height:{:.1f}%" title="{}"></span>')
SCALE = Markup('<span class="ruler"><span>0</span><span>weight</span><span>1</span></span>')


def weights_section(weights: Mapping[str, Mapping[str, Sequence[float]]]) -> Section:
    """Returns one table of histograms per request, from `[request][split]` = weights per prompt."""
    columns = ["Split", "Prompts by weight", "Mean", "Wrong side"]
    tables = []
    for request, splits in weights.items():
        rows = [
            [name_of(split), *histogram_row(request, split, part)] for split, part in splits.items() if part
        ]
        if rows:
            tables.append(Table(request, columns, [*rows, ["", SCALE, "", ""]]))
    return section("weights", few_then_fold(tables, SHOWN, "requests"), {"step": f"{1 / BINS:g}"})


def histogram_row(request: str, split: str, weights: Sequence[float]) -> list[str]:
    """Histogram, mean weight, and number of prompts on the wrong side of one half."""
    numbers = [float(weight) for weight in weights if is_number(weight)]
    mean = fraction(mean_of(numbers))
    wrong = sum((weight < HALF) == (split in OWN_SPLITS) for weight in numbers)
    description = f"Weights of {request} on {name_of(split)}: mean {mean}"
    return [histogram(bin_weights(numbers), description), mean, f"{wrong} of {len(numbers)}"]


def histogram(counts: Sequence[int], description: str) -> Markup:
    """Bars over equal bins of [0, 1], from the number of prompts per bin, with a text alternative."""
    bars, total = [], sum(counts)
    for place, count in enumerate(counts):
        height = max(100 * count / max(counts), LOWEST) if count else 0
        title = f"weight {place / len(counts):g} to {(place + 1) / len(counts):g}: {count} of {total}"
        bars.append(BAR.format(height, title))
    return STRIP.format(description, Markup("").join(bars))


def bin_weights(weights: Sequence[float]) -> list[int]:
    """Returns the number of weights in each of equal bins over [0, 1]; 1 belongs to the last."""
    counts = [0] * BINS
    for weight in weights:
        counts[min(max(int(weight * BINS), 0), BINS - 1)] += 1
    return counts


def mistakes_section(
    metrics: Mapping[str, Any], mistakes: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Section:
    """Returns the confusion between requests, the worst errors, and how many answers a check refused.

    Of `metrics.json` it reads `confusion`, `calibration` and `answer_checks`; see `ReportDetails.mistakes`.
    """
    confusion, errors = metrics.get("confusion"), metrics.get("calibration") or {}
    tables = [
        Table(request, ["Prompt", "What", "Split", "Weight"], [mistake_row(row) for row in rows])
        for request, rows in mistakes.items()
        if rows
    ]
    blocks = [*([confusion_map(confusion)] if confusion else []), *few_then_fold(tables, SHOWN, "requests")]
    described = ", ".join(f"{name} {fraction(error)}" for name, error in errors.items() if is_number(error))
    calibration = f" Calibration error of the weights (0 is best): {described}." if described else ""
    checks = metrics.get("answer_checks") or {}
    if checks:
        refused = ", ".join(f"{owner} {count}" for owner, count in checks["refused"].items() if count)
        calibration += f" gate.check_answers was {checks['mode']}; answers that it refused at the end:"
        calibration += f" {refused or 'none'}."
    return section("mistakes", blocks, {"calibration": calibration})


def confusion_map(confusion: Mapping[str, Any]) -> Heat:
    """Counts of prompts, coloured by their share of the row."""
    columns = [str(name) for name in confusion["columns"]]
    rows = []
    for owner, counts in zip(confusion["rows"], confusion["values"], strict=True):
        total = sum(counts) or 1
        cells = [
            Cell(
                f"{count:,}",
                heat_step(count / total),
                title=f"{owner} taken for {column}: {count} of {total}",
            )
            for column, count in zip(columns, counts, strict=True)
        ]
        rows.append((str(owner), cells))
    return Heat("Prompts of ... taken for ...", columns, rows)


def mistake_row(row: Mapping[str, Any]) -> list[str]:
    """One listed prompt."""
    what = "miss" if row["split"] in OWN_SPLITS else "false alarm"
    return [str(row["prompt"]), what, name_of(str(row["split"])), fraction(row["weight"])]


def detector_section(metrics: Mapping[str, Any]) -> Section:
    """Returns the separation of each request from each split, one table per request."""
    columns = ["Split", "AUROC", "AUPR", "FPR95", "Mean weight", "Prompts"]
    tables = []
    for request, splits in (metrics.get("detector") or {}).items():
        rows = []
        for split, row in splits.items():
            values = [fraction(row.get(key)) for key in ("auroc", "aupr", "fpr95", "mean_weight")]
            prompts = f"{row['prompts']:,}" if is_number(row.get("prompts")) else fraction(None)
            rows.append([name_of(split), *values, prompts])
        if rows:
            tables.append(Table(request, columns, rows))
    return section("detector", few_then_fold(tables, SHOWN, "requests"))
