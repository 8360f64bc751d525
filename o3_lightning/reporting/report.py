"""Puts the page together and writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from o3_lightning.common.files import write_atomically
from o3_lightning.reporting.blocks import Card, Section
from o3_lightning.reporting.cards import summary_cards
from o3_lightning.reporting.colours import heat_css, palette_css
from o3_lightning.reporting.gate import detector_section, mistakes_section, weights_section
from o3_lightning.reporting.outcome import persistence_section, plane_section, utility_section
from o3_lightning.reporting.record import (
    configuration_section,
    cost_section,
    environment_section,
    samples_section,
)
from o3_lightning.reporting.reference import reference_section
from o3_lightning.reporting.report_data import ReportDetails
from o3_lightning.reporting.robustness import attack_cards, robustness_section
from o3_lightning.reporting.training import curves_section, overlaps_section

__all__ = ["render_page", "render_report", "write_report"]

FILE_NAME = "report.html"


def write_report(folder: Path, metrics: Mapping[str, Any], details: ReportDetails) -> Path:
    """Writes one self-contained page that shows a run; a kill leaves the old page or the new.

    Args:
        folder: where `report.html` goes; made where it is missing.
        metrics: in the form of `metrics.json`; any key but `requests` may be missing, the page then says so
            in place of the picture.
        details: what the page shows beside the metrics.

    Returns:
        The file that was written.

    Raises:
        OSError: the folder cannot be written.
    """
    path = Path(folder) / FILE_NAME
    write_atomically(path, render_report(metrics, details))
    return path


def render_report(metrics: Mapping[str, Any], details: ReportDetails) -> str:
    """Returns the page as text: HTML with its style and pictures inside, no script, no address.

    Args:
        metrics: as in `write_report`.
        details: as in `write_report`.

    Example:
        >>> render_report({"requests": []}, ReportDetails("demo"))[:15]
        '<!DOCTYPE html>'
    """
    return render_page(
        details.title,
        lead_of(metrics),
        details.notes,
        page_sections(metrics, details),
        [*summary_cards(metrics), *attack_cards(details.robustness)],
    )


def render_page(
    title: str, lead: str, notes: Sequence[str], sections: Sequence[Section], cards: Sequence[Card] = ()
) -> str:
    """Returns any page of this package as text.

    Args:
        title: the heading.
        lead: one line under it.
        notes: sentences that a reader must know first.
        sections: the parts of the page, at least one.
        cards: the summary; without cards there is none.
    """
    palettes = {theme: palette_css(theme) for theme in ("light", "dark")}
    page = templates().get_template("page.html")
    return page.render(
        title=title,
        lead=lead,
        notes=notes,
        cards=cards,
        sections=sections,
        palettes=palettes,
        classes=heat_css(),
    )


def lead_of(metrics: Mapping[str, Any]) -> str:
    """The line under the heading: benchmark and requests."""
    requests = list(metrics["requests"])
    parts = ["Unlearning report"]
    if metrics.get("benchmark"):
        parts.append(f"benchmark {metrics['benchmark']}")
    count = f"{len(requests)} request{'' if len(requests) == 1 else 's'}"
    return " · ".join([*parts, f"{count}: {', '.join(requests)}" if requests else count])


def page_sections(metrics: Mapping[str, Any], details: ReportDetails) -> list[Section]:
    """Returns the parts of the page in their order."""
    plane = metrics.get("plane") or {}
    return [
        plane_section(
            {"base model": plane.get("base", {}), "gated model": plane.get("end", {}), **details.beside}
        ),
        persistence_section(metrics),
        utility_section(metrics),
        weights_section(details.weights),
        mistakes_section(metrics, details.mistakes),
        detector_section(metrics),
        reference_section(details.comparisons),
        robustness_section(details.robustness),
        samples_section(details.samples),
        curves_section(details.curves, metrics.get("adapters") or {}),
        overlaps_section(details.overlaps),
        cost_section(metrics),
        configuration_section(details.configuration),
        environment_section(metrics.get("environment") or {}, metrics.get("digests") or {}),
    ]


@cache
def templates() -> Environment:
    """The templates of this package; everything they are given is escaped."""
    return Environment(
        loader=PackageLoader("o3_lightning.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
