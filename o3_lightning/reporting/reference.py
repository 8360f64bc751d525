"""How models compare with one that never knew what they forgot: forget quality and privleak."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from o3_lightning.reporting.blocks import Block, Section, Table
from o3_lightning.reporting.words import fraction, name_of, number

__all__ = ["reference_section"]

Comparison = Mapping[str, Mapping[str, Any]]


def reference_section(comparisons: Mapping[str, Comparison]) -> Section:
    """Returns one table of forget quality and one of membership inference; none that was not measured.

    Args:
        comparisons: by model, the `comparison` of its evaluation, split by split.
    """
    quality = [row for model, parts in comparisons.items() for row in quality_rows(model, parts)]
    membership = [row for model, parts in comparisons.items() for row in membership_rows(model, parts)]
    blocks: list[Block] = []
    if quality:
        columns = ["Model", "Forget set", "KS distance", "p-value"]
        blocks.append(Table("Forget quality", columns, quality))
    if membership:
        columns = ["Model", "Forget set", "Attack", "AUC", "AUC of the reference", "privleak"]
        blocks.append(Table("Membership inference", columns, membership))
    return Section(
        "reference",
        "Against a model that never knew",
        "Forget quality tests whether truth ratios on the forget set are distributed as those of a model "
        "that was trained without it: a distance of 0 is like that model, a small p-value tells them apart. "
        "Membership inference tells forgotten rows from rows that no model saw; privleak is the AUC's change "
        "against the reference in %: near 0 is like it, far above or below still tells what was forgotten.",
        blocks,
        "No reference was evaluated; python train.py evaluate --reference retrained does.",
    )


def quality_rows(model: str, parts: Comparison) -> Iterator[list[str]]:
    """The numbers of one model's KS tests."""
    for split, found in parts.items():
        if "forget_quality" in found:
            test = found["forget_quality"]
            yield [model, readable(split), fraction(test["statistic"]), number(test["p_value"])]


def membership_rows(model: str, parts: Comparison) -> Iterator[list[str]]:
    """The numbers of one model's membership inference; without a reference it compares with chance."""
    for split, found in parts.items():
        for metric, values in found.get("membership", {}).items():
            numbers = [fraction(values[key]) for key in ("auc", "reference_auc", "privacy_leak")]
            yield [model, readable(split), metric.removeprefix("mia_"), *numbers]


def readable(split: str) -> str:
    """A split's owner and name for a reader.

    Example:
        >>> readable("authors_1/held_out")
        'authors_1, held-out'
    """
    owner, _, name = split.rpartition("/")
    return f"{owner}, {name_of(name).lower()}"
