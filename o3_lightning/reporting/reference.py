"""How models compare with one that never knew what they forgot: forget quality and privleak."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from o3_lightning.common.program import program_name
from o3_lightning.reporting.blocks import Block, Fold, Section, Table
from o3_lightning.reporting.formatting import DASH, fraction, name_of, number, percent

__all__ = ["reference_section"]

Comparison = Mapping[str, Mapping[str, Any]]


def reference_section(comparisons: Mapping[str, Comparison]) -> Section:
    """Returns one table of forget quality and one of membership inference; none that was not measured.

    Args:
        comparisons: by model, the `comparison` of its evaluation, split by split.
    """
    quality, membership = quality_table(comparisons), membership_table(comparisons)
    blocks: list[Block] = [quality] if quality.rows else []
    if membership.rows:
        blocks.append(Fold("Membership inference", [membership], open=not quality.rows))
    return Section(
        "reference",
        "Against a model that never knew",
        "Forget quality tests whether truth ratios on the forget set are distributed as those of a model "
        "that was trained without it: a distance of 0 is like that model, a small p-value tells them apart. "
        "Membership inference tells forgotten rows from rows that no model saw; privleak is the AUC's change "
        "against the reference in %: near 0 is like it, far above or below still tells what was forgotten.",
        blocks,
        f"No reference was evaluated; {program_name()} evaluate --reference retrained does.",
    )


def quality_table(comparisons: Mapping[str, Comparison]) -> Table:
    """A row a forget set, a column a model: KS distance and p-value."""
    models = [
        name for name, parts in comparisons.items() if any("forget_quality" in p for p in parts.values())
    ]
    rows = []
    for split in splits_of(comparisons, "forget_quality"):
        tests = [comparisons[model].get(split, {}).get("forget_quality") for model in models]
        cells = [f"{fraction(t['statistic'])} (p {number(t['p_value'])})" if t else DASH for t in tests]
        rows.append([readable(split), *cells])
    return Table("Forget quality: KS distance", ["Forget set", *models], rows)


def membership_table(comparisons: Mapping[str, Comparison]) -> Table:
    """A row a forget set and attack, the reference's AUC, and a column a model: AUC and privleak."""
    models = [name for name, parts in comparisons.items() if any("membership" in p for p in parts.values())]
    rows = []
    for split in splits_of(comparisons, "membership"):
        found = [comparisons[model].get(split, {}).get("membership", {}) for model in models]
        for attack in dict.fromkeys(name for part in found for name in part):
            values = [part.get(attack) for part in found]
            reference = next((value["reference_auc"] for value in values if value), None)
            cells = [
                f"{fraction(v['auc'])} ({percent(v['privacy_leak'] / 100, sign=True)})" if v else DASH
                for v in values
            ]
            rows.append([f"{readable(split)}, {attack.removeprefix('mia_')}", fraction(reference), *cells])
    return Table("AUC, and privleak", ["Forget set and attack", "reference", *models], rows)


def splits_of(comparisons: Mapping[str, Comparison], kind: str) -> list[str]:
    """The forget sets of which some model has a comparison, in the order of first sight."""
    return list(
        dict.fromkeys(
            split for parts in comparisons.values() for split, found in parts.items() if kind in found
        )
    )


def readable(split: str) -> str:
    """A split's owner and name for a reader.

    Example:
        >>> readable("authors_1/held_out")
        'authors_1, held-out'
    """
    owner, _, name = split.rpartition("/")
    return f"{owner}, {name_of(name).lower()}"
