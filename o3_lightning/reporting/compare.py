"""Several runs side by side on one page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from o3_lightning.common.plain import leaves
from o3_lightning.evaluation.headline import FIGURES, headline
from o3_lightning.reporting.blocks import Fold, Section, Table
from o3_lightning.reporting.cards import summary_cards
from o3_lightning.reporting.formatting import DASH, binary_size, fraction, mebibytes, number
from o3_lightning.reporting.long_form import COLUMNS, long_form
from o3_lightning.reporting.outcome import plane_section
from o3_lightning.reporting.report import render_page

__all__ = ["ComparedRun", "comparison_csv", "differing_settings", "render_comparison", "warnings_of"]

PLAIN_NUMBERS = ("seconds", "u2r", "interference")
CARDS = {
    "Gate": "lowest AUROC of a detector against another split (higher is better)",
    "Cost": "all stages together, evaluation included",
}
ABSENT = "(absent)"
MEANINGLESS = ("name", "output", "logging")  # settings that do not decide the outcome


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison.

    Args:
        name: stands for the run in tables and pictures.
        metrics: the content of its `metrics.json`.
        configuration: the content of its `config.yaml`.
    """

    name: str
    metrics: Mapping[str, Any]
    configuration: Mapping[str, Any]


def render_comparison(runs: Sequence[ComparedRun]) -> str:
    """Returns a self-contained page that shows runs side by side.

    Args:
        runs: two or more, names unique.
    """
    return render_page(
        "Comparison of runs",
        f"{len(runs)} runs: {', '.join(run.name for run in runs)}",
        notes=warnings_of(runs),
        sections=[
            figures_section(runs),
            plane_section(places_of(runs)),
            requests_section(runs),
            settings_section(runs),
        ],
    )


def warnings_of(runs: Sequence[ComparedRun]) -> list[str]:
    """Returns what forbids reading the runs as one comparison, one sentence each."""
    checks = {
        "the benchmark": [run.metrics.get("benchmark") for run in runs],
        "the requests or their order": [run.metrics.get("requests") for run in runs],
        "the forget sets": [digests(run, "requests") for run in runs],
        "the base model": [digests(run, "base") for run in runs],
        "the rows of the utility splits": [
            (run.metrics.get("plane") or {}).get("base", {}).get("utility", {}).get("rows") for run in runs
        ],
    }
    return [
        f"Not all runs agree in {what}: their numbers do not compare."
        for what, values in checks.items()
        if any(value != values[0] for value in values)
    ]


def digests(run: ComparedRun, key: str) -> Any:
    """A part of a run's digests."""
    return (run.metrics.get("digests") or {}).get(key)


def figures_section(runs: Sequence[ComparedRun]) -> Section:
    """The headline figures, one column a run, with what each row means."""
    found = [headline(run.metrics) for run in runs]
    names = [figure for figure in FIGURES if any(figure in figures for figures in found)]
    rows = [[name, *(figure_text(name, figures.get(name)) for figures in found)] for name in names]
    rows += [[title, *(card_text(run, title) for run in runs)] for title in CARDS]
    rows.append(["peak memory", *(mebibytes(run.metrics.get("peak_memory_mib")) for run in runs)])
    rows.append(["bytes in the store", *(binary_size(stored_bytes(run)) for run in runs)])
    meanings = [[name, FIGURES[name]] for name in names] + [[name, text] for name, text in CARDS.items()]
    return Section(
        "figures",
        "Headline figures",
        "After the last request of each run.",
        [
            Table("", ["figure", *(run.name for run in runs)], rows),
            Fold("What the figures mean", [Table("", ["figure", "meaning"], meanings, prose=True)]),
        ],
        "No run measured anything.",
    )


def card_text(run: ComparedRun, title: str) -> str:
    """The number of one card of a run's own page."""
    return next(card.value for card in summary_cards(run.metrics) if card.title == title)


def stored_bytes(run: ComparedRun) -> int | None:
    """What all requests of a run take in its store; None where it was not counted."""
    sizes = run.metrics.get("store_bytes")
    return sum(sizes.values()) if sizes else None


def comparison_csv(runs: Sequence[ComparedRun]) -> str:
    """Returns the runs' `metrics.csv` below each other, with the run's name in the first column."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *COLUMNS])
    for run in runs:
        lines = csv.reader(io.StringIO(long_form(run.metrics)))
        next(lines)
        writer.writerows([run.name, *line] for line in lines)
    return text.getvalue()


def figure_text(name: str, value: float | None) -> str:
    """One figure as it is read."""
    if value is None:
        return DASH
    return number(value) if name in PLAIN_NUMBERS else fraction(value)


def places_of(runs: Sequence[ComparedRun]) -> dict[str, Any]:
    """The runs' places on the plane, the first run's base model before them."""
    planes = {run.name: run.metrics.get("plane") or {} for run in runs}
    first = planes[runs[0].name].get("base")
    ends = {name: plane["end"] for name, plane in planes.items() if "end" in plane}
    return {**({"base model": first} if first else {}), **ends}


def requests_section(runs: Sequence[ComparedRun]) -> Section:
    """Held-out accuracy of every request at the end, one column a run."""
    names = list(dict.fromkeys(name for run in runs for name in run.metrics["requests"]))
    ends = [final_accuracies(run) for run in runs]
    rows = [[name, *(fraction(end.get(name)) for end in ends)] for name in names]
    return Section(
        "requests",
        "Every request",
        "Accuracy on held-out prompts after the last request; lower is better. Where a run has no held-out "
        "prompts the forget prompts count.",
        [Table("", ["request", *(run.name for run in runs)], rows)] if any(ends) else [],
        "No run measured accuracy.",
    )


def final_accuracies(run: ComparedRun) -> dict[str, float | None]:
    """Each request's accuracy at the end of a run."""
    splits = run.metrics["persistence"].get("accuracy") or {}
    matrix = splits.get("held_out") or splits.get("seen")
    if matrix is None:
        return {}
    return {name: row[-1] for name, row in zip(matrix["rows"], matrix["values"], strict=True)}


def settings_section(runs: Sequence[ComparedRun]) -> Section:
    """The settings in which the runs differ."""
    rows, names = differing_settings([run.configuration for run in runs]), [run.name for run in runs]
    return Section(
        "settings",
        "Settings that differ",
        "All other settings are the same.",
        [Table("", ["setting", *names], [[key, *values] for key, values in rows], prose=True)]
        if rows
        else [],
        "The runs have the same settings.",
    )


def differing_settings(configurations: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Returns each setting whose values differ, with dots, and its value in every configuration.

    Example:
        >>> differing_settings([{"seed": 0, "gate": {"top_k": 1}}, {"seed": 0, "gate": {"top_k": 2}}])
        [('gate.top_k', ['1', '2'])]
    """
    flat = [
        {key: str(value) for key, value in leaves(one) if key.split(".")[0] not in MEANINGLESS}
        for one in configurations
    ]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [(key, [one.get(key, ABSENT) for one in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]
