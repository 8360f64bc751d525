"""The grids of a study: the combinations of some values, and the best of them on validation requests."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.evaluation.figures import selection_score

Plain = dict[str, Any]


def grids_of(shared: Any, own: Mapping[str, Any], path: Path) -> dict[str, dict[str, list[Any]]]:
    """Returns the lists of values by variant and dotted field.

    Args:
        shared: the grid of all variants, or None.
        own: the grid of each variant, or None; a field overrides the shared one, an empty list drops it.
        path: of the study, named in errors.

    Raises:
        InputError: a grid is not lists by field.
    """
    for name, grid in {
        "grid": shared,
        **{f"variants.{name}.grid": grid for name, grid in own.items()},
    }.items():
        lists = isinstance(grid, dict) and all(isinstance(values, list) for values in grid.values())
        if grid is not None and not lists:
            raise InputError(f"expected lists of values by field, got {grid!r}", path=path, field=name)
    merged = {name: {**(shared or {}), **(grid or {})} for name, grid in own.items()}
    return {name: {field: each for field, each in grid.items() if each} for name, grid in merged.items()}


def combinations(grid: Mapping[str, Sequence[Any]]) -> list[Plain]:
    """Returns every combination of values by dotted field; none for an empty grid.

    Example:
        >>> combinations({"adapter.rank": [4, 8]})
        [{'adapter.rank': 4}, {'adapter.rank': 8}]
    """
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())] if grid else []


def nested(values: Mapping[str, Any]) -> Plain:
    """Returns values by dotted field as nested sections.

    Example:
        >>> nested({"adapter.rank": 4, "seed": 1})
        {'adapter': {'rank': 4}, 'seed': 1}
    """
    found: Plain = {}
    for name, value in values.items():
        *sections, last = name.split(".")
        inner = found
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return found


def best(tried: Sequence[tuple[Plain, Mapping[str, float] | None]]) -> Plain | None:
    """Returns the combination with the highest `selection_score`; the first of equal ones.

    Args:
        tried: combinations with the headline figures of their runs, None for a run that failed.

    Returns:
        `values`, `score` and `tried` (values and score of each, None where it failed); None if all failed.
    """
    scores = [None if figures is None else selection_score(figures) for _, figures in tried]
    known = [score for score in scores if score is not None]
    if not known:
        return None
    number = scores.index(max(known))
    each = [{"values": values, "score": score} for (values, _), score in zip(tried, scores, strict=True)]
    return {**each[number], "tried": each}
