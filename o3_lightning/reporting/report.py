"""Renders the page of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from o3_lightning.common.pages import page_templates
from o3_lightning.evaluation.figures import Place
from o3_lightning.reporting import external_results, gate, outcome, record
from o3_lightning.reporting.blocks import Card, Section
from o3_lightning.reporting.cards import attack_cards, summary_cards
from o3_lightning.reporting.colours import heat_css, palette_css
from o3_lightning.reporting.verdict import Finding, findings, knowledge_notes, limits_text, sample_notes


@dataclass(frozen=True)
class ReportDetails:
    """What the report shows beside the metrics, as plain JSON; every field may be empty.

    Args:
        title: the heading of the page, e.g. the run's name.
        weights: `[request][split]` = that request's weight of each prompt, each in [0, 1].
        mistakes: `[request]` = prompts on the wrong side of one half: "split", "prompt" and "weight".
        curves: `[request]` = one mapping per training step, loss name to value; "step" is the step, by
            default the position in the list.
        samples: answers before and after: "split", "request" ("" for utility), "prompt", "truth", "before",
            "after" and "weights" (request id to weight).
        configuration: the whole configuration, YAML text.
        overlaps: by name of the measure, "rows" (request ids) and "values" (a square matrix).
        robustness: rows of `evaluation.robustness.Robustness.run`, one per attack and request.
        comparisons: by model, the `comparison` of its evaluation with a reference.
        beside: other models on the plane by name, results of `place_on_plane`.
    """

    title: str
    weights: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    mistakes: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    curves: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    samples: Sequence[Mapping[str, Any]] = ()
    configuration: str = ""
    overlaps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    robustness: Sequence[Mapping[str, Any]] = ()
    comparisons: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    beside: Mapping[str, Place] = field(default_factory=dict)


def render_report(metrics: Mapping[str, Any], details: ReportDetails) -> str:
    """Returns the page of a run: self-contained HTML with inline style and pictures, no script, no URL.

    Any key of `metrics`, the content of `metrics.json`, but `requests` may be missing; the page says so.

    Example:
        >>> render_report({"requests": []}, ReportDetails("demo"))[:15]
        '<!DOCTYPE html>'
    """
    requests, plane = list(metrics["requests"]), metrics.get("plane") or {}
    benchmark = [f"benchmark {metrics['benchmark']}"] if metrics.get("benchmark") else []
    count = f"{len(requests)} request{'' if len(requests) == 1 else 's'}"
    lead = ["Unlearning report", *base_of(details.configuration), *benchmark]
    lead.append(f"{count}: {', '.join(requests)}" if requests else count)
    models = {"base model": plane.get("base", {}), "gated model": plane.get("end", {}), **details.beside}
    sections = [
        outcome.plane_section(models),
        outcome.persistence_section(metrics),
        outcome.utility_section(metrics),
        gate.weights_section(details.weights),
        gate.mistakes_section(metrics, details.mistakes),
        gate.detector_section(metrics),
        external_results.reference_section(details.comparisons),
        external_results.robustness_section(details.robustness),
        record.samples_section(details.samples),
        outcome.curves_section(details.curves, metrics.get("adapters") or {}),
        outcome.overlaps_section(details.overlaps),
        record.cost_section(metrics),
        record.configuration_section(details.configuration),
        record.environment_section(metrics.get("environment") or {}, metrics.get("digests") or {}),
    ]
    cards = [*summary_cards(metrics), *attack_cards(details.robustness)]
    notes = [*knowledge_notes(metrics), *sample_notes(metrics)]
    found = findings(metrics, details.weights, details.robustness)
    return render_page(details.title, " · ".join(lead), notes, sections, cards, found)


def base_of(configuration: str) -> list[str]:
    """Returns the base model's name from the text of the configuration, in a list; empty without one."""
    values = yaml.safe_load(configuration) if configuration.strip() else None
    base = values.get("base") if isinstance(values, dict) else None
    return [f"base model {base['id']}"] if isinstance(base, dict) and base.get("id") else []


def render_page(
    title: str,
    lead: str,
    notes: Sequence[str],
    sections: Sequence[Section],
    cards: Sequence[Card] = (),
    found: Sequence[Finding] = (),
) -> str:
    """Returns a page as text; of what was found the first is the worst."""
    palettes = {theme: palette_css(theme) for theme in ("light", "dark")}
    page = page_templates("o3_lightning.reporting").get_template("page.html")
    return page.render(
        title=title,
        lead=lead,
        notes=notes,
        cards=cards,
        findings=found,
        limits=limits_text(),
        sections=sections,
        palettes=palettes,
        classes=heat_css(),
    )
