"""The summary at the top of the page: forget, utility, persistence, gate, cost, attacks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from o3_lightning.common.plain import mean_of
from o3_lightning.evaluation.tables import attack_summary
from o3_lightning.reporting.blocks import Card
from o3_lightning.reporting.formatting import (
    DASH,
    fraction,
    is_number,
    is_own,
    mebibytes,
    name_of,
    number,
    percent,
    seconds,
)

Metrics = Mapping[str, Any]
MAIN_METRICS = ("accuracy", "rouge_l_recall", "probability")  # higher values mean more knowledge


def summary_cards(metrics: Metrics) -> list[Card]:
    """Returns the cards of the summary of `metrics.json`; what was not measured is a dash."""
    cards = (part(metrics) for part in (forget_card, utility_card, persistence_card, gate_card, cost_card))
    return [replace(card, lines=[line for line in card.lines if line[1] != DASH]) for card in cards]


def main_metric(matrices: Mapping[str, Any]) -> str:
    """Returns the metric of the summary: accuracy where it was measured."""
    return next((name for name in (*MAIN_METRICS, *matrices) if name in matrices), MAIN_METRICS[0])


def forget_card(metrics: Metrics) -> Card:
    """What the model still knows at the end."""
    matrices = metrics.get("persistence") or {}
    metric = main_metric(matrices)
    splits = matrices.get(metric) or {}
    ends = {split: mean_of(row[-1] for row in matrix["values"] if row) for split, matrix in splits.items()}
    shown = "seen" if "seen" in splits else next(iter(splits), "")
    start = mean_of(row[0] for row in splits.get(shown, {}).get("values", ()) if row)
    lines = [(name_of(split), percent(end)) for split, end in ends.items()]
    lines.append((f"Base model, {name_of(shown).lower()}", percent(start)))
    sentence = f"{name_of(metric)} on forget prompts after the last request"
    return Card("Forget", percent(ends.get(shown)), sentence, lines)


def utility_card(metrics: Metrics) -> Card:
    """What the model kept of the rest, relative to the base model."""
    kept = {split: relative(column) for split, column in (metrics.get("utility") or {}).items()}
    lines = [(name_of(split), percent(share)) for split, share in kept.items()]
    lines.append(("Drop ratio (U2R)", number(metrics.get("u2r"))))
    sentence = "of the base model's value kept on everything else, mean over splits"
    return Card("Utility", percent(mean_of(kept.values())), sentence, lines)


def relative(column: Any) -> float | None:
    """The last value as a share of the first; None where there is none."""
    if not column or not is_number(column[0]) or not is_number(column[-1]) or not column[0]:
        return None
    return float(column[-1]) / float(column[0])


def persistence_card(metrics: Metrics) -> Card:
    """Whether forgotten answers came back."""
    transfers = metrics.get("backward_transfer") or {}
    splits = transfers.get(main_metric(transfers)) or {}
    worst = max((value for value in splits.values() if is_number(value)), default=None)
    lines = [(name_of(split), percent(value, sign=True)) for split, value in splits.items()]
    sentence = "change of earlier requests from their own unlearning to the end (plus: answers came back)"
    return Card("Persistence", percent(worst, sign=True), sentence, lines)


def detector_rows(metrics: Metrics, key: str, *, own: bool) -> Iterator[float | None]:
    """One figure of the detectors on the requests' own splits, or on those of others."""
    for request, splits in (metrics.get("detector") or {}).items():
        yield from (row.get(key) for split, row in splits.items() if is_own(request, split) is own)


def gate_card(metrics: Metrics) -> Card:
    """How well the gate separates forget prompts from the rest."""
    areas, outside = (detector_rows(metrics, key, own=False) for key in ("auroc", "mean_weight"))
    lowest = min(filter(is_number, areas), default=None)
    highest = max(filter(is_number, outside), default=None)
    inside = mean_of(detector_rows(metrics, "mean_weight", own=True))
    lines = [("Mean weight inside", fraction(inside)), ("Highest outside", fraction(highest))]
    lines.append(("Refused by answer check", refused_answers(metrics)))
    return Card("Gate", fraction(lowest), "lowest AUROC of a detector against prompts of others", lines)


def refused_answers(metrics: Metrics) -> str:
    """Returns how many answers `gate.check_answers` refused at the end of the run."""
    checks = metrics.get("answer_checks") or {}
    if not checks or checks["mode"] == "off":
        return "not checked" if checks else DASH
    return f"{sum(checks['refused'].values()):,} of {checks['answers']:,}"


def cost_card(metrics: Metrics) -> Card:
    """Time and memory of the run."""
    times = list(filter(is_number, (metrics.get("seconds") or {}).values()))
    total = sum(times) if times else None
    lines = [("Peak memory", mebibytes(metrics.get("peak_memory_mib")))]
    if metrics.get("requests"):
        share = total / len(metrics["requests"]) if total is not None else None
        lines.append(("Per request", seconds(share)))
    return Card("Cost", seconds(total), "in all stages together, evaluation included", lines)


def attack_cards(table: Sequence[Mapping[str, Any]]) -> list[Card]:
    """Returns a card with the kind of attack that leaks most; none without rows of `Robustness.run`."""
    summary = attack_summary(table)
    found = summary.get("test") or next(iter(summary.values()), None)
    if found is None:
        return []
    lines = [
        ("Leak of base, all kinds", percent(found["leak_of_base"])),
        ("Caught", percent(found["caught"])),
        ("False alarms", percent(found["false_alarm"])),
    ]
    sentence = f"leak under the worst of {found['kinds']} kinds of attack: {name_of(found['worst'])}"
    return [Card("Attacks", percent(found["worst_leak"]), sentence, lines)]
