"""Several runs side by side on one page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from o3_lightning.common.files import csv_text
from o3_lightning.common.plain import leaves
from o3_lightning.evaluation.figures import FIGURES, headline
from o3_lightning.reporting.blocks import Block, Fold, Section, Table, section
from o3_lightning.reporting.cards import summary_cards
from o3_lightning.reporting.formatting import DASH, binary_size, fraction, mebibytes, number
from o3_lightning.reporting.long_form import COLUMNS, rows_of
from o3_lightning.reporting.outcome import plane_section
from o3_lightning.reporting.report import render_page

PLAIN_NUMBERS = ("seconds", "u2r", "interference")
CARDS = {
    "Gate": "lowest AUROC of a detector against prompts of others (higher is better)",
    "Cost": "all stages together, evaluation included",
}
ABSENT = "(absent)"
IGNORED = ("name", "output", "logging")  # settings without influence on the results


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison: its name, and the contents of its `metrics.json` and `config.yaml`."""

    name: str
    metrics: Mapping[str, Any]
    configuration: Mapping[str, Any]


def render_comparison(runs: Sequence[ComparedRun]) -> str:
    """Returns a self-contained page that shows two or more runs, with unique names, side by side."""
    planes = {run.name: run.metrics.get("plane") or {} for run in runs}
    first = planes[runs[0].name].get("base")
    ends = {name: plane["end"] for name, plane in planes.items() if "end" in plane}
    return render_page(
        "Comparison of runs",
        f"{len(runs)} runs: {', '.join(run.name for run in runs)}",
        notes=warnings_of(runs),
        sections=[
            figures_section(runs),
            plane_section({**({"base model": first} if first else {}), **ends}),
            requests_section(runs),
            settings_section(runs),
        ],
    )


def warnings_of(runs: Sequence[ComparedRun]) -> list[str]:
    """Returns one sentence for each difference that makes the runs' numbers incomparable."""
    checks: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "the benchmark": lambda metrics: metrics.get("benchmark"),
        "the requests or their order": lambda metrics: metrics.get("requests"),
        "the forget sets": lambda metrics: (metrics.get("digests") or {}).get("requests"),
        "the base model": lambda metrics: (metrics.get("digests") or {}).get("base"),
        "the rows of the utility splits": lambda metrics: (
            (metrics.get("plane") or {}).get("base", {}).get("utility", {}).get("rows")
        ),
    }
    return [
        f"The runs differ in {what}: their numbers cannot be compared."
        for what, value_of in checks.items()
        if any(value_of(run.metrics) != value_of(runs[0].metrics) for run in runs)
    ]


def compared(
    runs: Sequence[ComparedRun], name: str, rows: Sequence[Sequence[str]], *, prose: bool = False
) -> Table:
    """A table with one column per run."""
    return Table("", [name, *(run.name for run in runs)], rows, prose=prose)


def figures_section(runs: Sequence[ComparedRun]) -> Section:
    """The headline figures, one column per run, with what each row means."""
    found = [headline(run.metrics) for run in runs]
    names = [figure for figure in FIGURES if any(figure in figures for figures in found)]
    rows = [[name, *(figure_text(name, figures.get(name)) for figures in found)] for name in names]
    cards = [{card.title: card.value for card in summary_cards(run.metrics)} for run in runs]
    rows += [[title, *(values[title] for values in cards)] for title in CARDS]
    rows.append(["peak memory", *(mebibytes(run.metrics.get("peak_memory_mib")) for run in runs)])
    stored = [(run.metrics.get("store_bytes") or {}).values() for run in runs]
    rows.append(["bytes in the store", *(binary_size(sum(sizes) if sizes else None) for sizes in stored)])
    meanings = [[name, FIGURES[name]] for name in names] + [[name, text] for name, text in CARDS.items()]
    fold = Fold("Meaning of the figures", [Table("", ["figure", "meaning"], meanings, prose=True)])
    return section("figures", [compared(runs, "figure", rows), fold])


def figure_text(name: str, value: float | None) -> str:
    """One figure as text."""
    if value is None:
        return DASH
    return number(value) if name in PLAIN_NUMBERS else fraction(value)


def comparison_csv(runs: Sequence[ComparedRun]) -> str:
    """Returns the runs' `metrics.csv` below each other, with the run's name in the first column."""
    rows = ([run.name, *row] for run in runs for row in rows_of(run.metrics))
    return csv_text(["run", *COLUMNS], rows)


def requests_section(runs: Sequence[ComparedRun]) -> Section:
    """Held-out accuracy of every request at the end, one column per run."""
    names = list(dict.fromkeys(name for run in runs for name in run.metrics["requests"]))
    ends = [final_accuracies(run) for run in runs]
    rows = [[name, *(fraction(end.get(name)) for end in ends)] for name in names]
    return section("requests", [compared(runs, "request", rows)] if any(ends) else [])


def final_accuracies(run: ComparedRun) -> dict[str, float | None]:
    """Each request's accuracy at the end of a run."""
    splits = run.metrics["persistence"].get("accuracy") or {}
    matrix = splits.get("held_out") or splits.get("seen") or {"rows": (), "values": ()}
    return {name: row[-1] for name, row in zip(matrix["rows"], matrix["values"], strict=True)}


def settings_section(runs: Sequence[ComparedRun]) -> Section:
    """The settings in which the runs differ."""
    rows = [[key, *values] for key, values in differing_settings([run.configuration for run in runs])]
    blocks: list[Block] = [compared(runs, "setting", rows, prose=True)] if rows else []
    return section("settings", blocks)


def differing_settings(configurations: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Returns each setting whose values differ, with dots, and its value in every configuration."""
    flat = [
        {key: str(value) for key, value in leaves(one) if key.split(".")[0] not in IGNORED}
        for one in configurations
    ]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [(key, [one.get(key, ABSENT) for one in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]
