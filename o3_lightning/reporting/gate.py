"""What the gate does: histograms of weights, and the detectors' separation as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from o3_lightning.common.plain import mean_of
from o3_lightning.metrics.calibration import HALF
from o3_lightning.reporting.blocks import Cell, Heat, Section, Table, few_then_fold
from o3_lightning.reporting.colours import heat_step
from o3_lightning.reporting.formatting import OWN_SPLITS, fraction, is_number, name_of

__all__ = ["bin_weights", "detector_section", "mistakes_section", "weights_section"]

BINS = 20
SHOWN = 3  # requests whose tables stand open
LOWEST = 5  # height of a bar in percent
STRIP = Markup('<div class="strip" role="img" aria-label="{}">{}</div>')
BAR = Markup('<span style="height:{:.1f}%" title="{}"></span>')
SCALE = Markup('<span class="ruler"><span>0</span><span>weight</span><span>1</span></span>')


def weights_section(weights: Mapping[str, Mapping[str, Sequence[float]]]) -> Section:
    """Returns one table of histograms per request.

    Args:
        weights: `[request][split]` = weights per prompt.
    """
    tables = [histogram_table(request, splits) for request, splits in weights.items() if any(splits.values())]
    return Section(
        "weights",
        "Weights of the gate",
        "How the weights of each request spread over 0 (base model) to 1 (adapter fully on), in steps of "
        f"{1 / BINS:g}; each histogram is scaled to its highest bar, and a bar is drawn even for one prompt. "
        "Seen and held-out prompts belong right, all others left; on the wrong side of 0.5 a prompt is a "
        "miss (own splits) or a false alarm (others).",
        few_then_fold(tables, SHOWN, "requests"),
        "No weights were kept, so there are no histograms.",
    )


def histogram_table(request: str, splits: Mapping[str, Sequence[float]]) -> Table:
    """The histograms of one request, one row per split."""
    rows = [
        [name_of(split), *histogram_row(request, split, values)] for split, values in splits.items() if values
    ]
    return Table(request, ["Split", "Prompts by weight", "Mean", "Wrong side"], [*rows, ["", SCALE, "", ""]])


def histogram_row(request: str, split: str, weights: Sequence[float]) -> list[str]:
    """Histogram, mean weight, and how many prompts lie on the wrong side of one half."""
    numbers = [float(weight) for weight in weights if is_number(weight)]
    own = split in OWN_SPLITS
    wrong = sum((weight < HALF) == own for weight in numbers)
    description = f"Weights of {request} on {name_of(split)}: mean {fraction(mean_of(numbers))}"
    return [
        histogram(bin_weights(numbers), description),
        fraction(mean_of(numbers)),
        f"{wrong} of {len(numbers)}",
    ]


def histogram(counts: Sequence[int], description: str) -> Markup:
    """Returns bars over equal bins of [0, 1]; a bar is never lower than `LOWEST`, so that one prompt shows.

    Args:
        counts: prompts per bin.
        description: text alternative of the picture.
    """
    bars, total = [], sum(counts)
    for place, count in enumerate(counts):
        height = max(100 * count / max(counts), LOWEST) if count else 0
        title = f"weight {place / len(counts):g} to {(place + 1) / len(counts):g}: {count} of {total}"
        bars.append(BAR.format(height, title))
    return STRIP.format(description, Markup("").join(bars))


def bin_weights(weights: Sequence[float], bins: int = BINS) -> list[int]:
    """Returns how many weights lie in each of equal bins over [0, 1]; 1 belongs to the last.

    Example:
        >>> bin_weights([0.0, 0.49, 0.5, 1.0], bins=2)
        [2, 2]
    """
    counts = [0] * bins
    for weight in weights:
        counts[min(max(int(weight * bins), 0), bins - 1)] += 1
    return counts


def mistakes_section(
    metrics: Mapping[str, Any], mistakes: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Section:
    """Returns the confusion between requests and the prompts on the wrong side.

    Args:
        metrics: in the form of `metrics.json`; `confusion` and `calibration` are read.
        mistakes: in the form of `ReportDetails.mistakes`.
    """
    confusion, errors = metrics.get("confusion"), metrics.get("calibration") or {}
    blocks: list[Any] = [confusion_map(confusion)] if confusion else []
    blocks += few_then_fold(
        [mistakes_table(name, rows) for name, rows in mistakes.items() if rows], SHOWN, "requests"
    )
    described = ", ".join(f"{name} {fraction(error)}" for name, error in errors.items() if is_number(error))
    calibration = f" Calibration error of the weights (0 is best): {described}." if described else ""
    return Section(
        "mistakes",
        "Where the gate errs",
        "Rows are the owners of forget prompts, the last row the utility prompts; columns are the request "
        "that a prompt is taken for. Below stand the worst misses and false alarms, where the run kept "
        "their text." + calibration,
        blocks,
        "The run did not look for mistakes of the gate.",
    )


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


def mistakes_table(request: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """The listed prompts of one request."""
    cells = [
        [
            str(row["prompt"]),
            "miss" if row["split"] in OWN_SPLITS else "false alarm",
            name_of(str(row["split"])),
            fraction(row["weight"]),
        ]
        for row in rows
    ]
    return Table(request, ["Prompt", "What", "Split", "Weight"], cells)


def detector_section(metrics: Mapping[str, Any]) -> Section:
    """Returns the separation of each request from each split, one table per request."""
    detectors = metrics.get("detector") or {}
    tables = [separation_table(request, splits) for request, splits in detectors.items() if splits]
    return Section(
        "detector",
        "Detectors",
        "How well each request's score tells its own prompts from another split: AUROC (0.5 is chance, 1 is "
        "perfect), AUPR, and FPR95, the share of other prompts let in when 95 % of its own are found (0 is "
        "perfect). A dash stands where there is nothing to tell apart.",
        few_then_fold(tables, SHOWN, "requests"),
        "The run did not measure its detectors.",
    )


def separation_table(request: str, splits: Mapping[str, Mapping[str, Any]]) -> Table:
    """The table of one request."""
    columns = ["Split", "AUROC", "AUPR", "FPR95", "Mean weight", "Prompts"]
    rows = []
    for split, row in splits.items():
        values = [fraction(row.get(key)) for key in ("auroc", "aupr", "fpr95", "mean_weight")]
        prompts = f"{row['prompts']:,}" if is_number(row.get("prompts")) else fraction(None)
        rows.append([name_of(split), *values, prompts])
    return Table(request, columns, rows)
