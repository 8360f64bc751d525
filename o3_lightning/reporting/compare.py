"""Several runs side by side on one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from o3_lightning.evaluation.headline import FIGURES, headline
from o3_lightning.reporting.blocks import Fold, Section, Table
from o3_lightning.reporting.plane import plane_section
from o3_lightning.reporting.report import render_page
from o3_lightning.reporting.words import DASH, fraction, mebibytes, number

__all__ = ["ComparedRun", "differing_settings", "render_comparison", "warnings_of"]

PLAIN_NUMBERS = ("seconds", "u2r", "interference")
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
    """The headline figures, one row a run, with what each column means."""
    found = {run.name: headline(run.metrics) for run in runs}
    names = [figure for figure in FIGURES if any(figure in figures for figures in found.values())]
    rows = [
        [run, *(figure_text(name, figures.get(name)) for name in names)] for run, figures in found.items()
    ]
    memory = [mebibytes(run.metrics.get("peak_memory_mib")) for run in runs]
    table = Table(
        "",
        ["run", *names, "peak memory"],
        [[*row, peak] for row, peak in zip(rows, memory, strict=True)],
    )
    meanings = Table("", ["column", "meaning"], [[name, FIGURES[name]] for name in names])
    return Section(
        "figures",
        "Headline figures",
        "After the last request of each run.",
        [table, Fold("What the columns mean", [meanings])],
        "No run measured anything.",
    )


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
    rows = differing_settings([run.configuration for run in runs])
    return Section(
        "settings",
        "Settings that differ",
        "All other settings are the same.",
        [Table("", ["setting", *(run.name for run in runs)], [[key, *values] for key, values in rows])]
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
    flat = [dict(leaves(configuration)) for configuration in configurations]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [(key, [one.get(key, ABSENT) for one in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every setting with its value as text."""
    for key, inner in value.items():
        if not prefix and key in MEANINGLESS:
            continue
        if isinstance(inner, Mapping):
            yield from leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(inner)
