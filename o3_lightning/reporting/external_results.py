"""What other commands left in a run's folder: attacks, and evaluations of other models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.evaluation.combined import Place, place_on_plane

__all__ = ["read_attacks", "read_comparisons", "read_places"]

ATTACKS = "robustness.json"
OWN = "evaluation.json"
EVALUATIONS = ("evaluation-*.json", "reference-*.json")
SIDES = {"forget", "utility"}
NAMED = {"attack", "request"}


def read_attacks(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of `robustness.json`; none where no attack was tried.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / ATTACKS
    rows = read_part(path, "table") if path.is_file() else []
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= NAMED for row in rows):
        raise InputError("expected rows with an attack and a request", path=path, field="table")
    return rows


def read_places(folder: Path) -> dict[str, Place]:
    """Returns the place on the plane of every other model that was evaluated on the run's data, by name.

    An evaluation of "peer" is named "peer"; a reference, a retrained model, "peer (reference)". What has no
    accuracy on both sides has no place.

    Raises:
        InputError: a file is damaged.
    """
    places = {}
    for pattern in EVALUATIONS:
        for path in sorted(folder.glob(pattern)):
            kind, name = path.stem.split("-", 1)
            content = {key: read_part(path, key) for key in ("requests", "utility")}
            place = place_on_plane(content)
            if set(place) >= SIDES:
                places[f"{name} (reference)" if kind == "reference" else name] = place
    return places


def read_comparisons(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Returns how each evaluated model compares with its reference, by name; the run's own comes first.

    Raises:
        InputError: a file is damaged.
    """
    files = {path.stem.split("-", 1)[1]: path for path in sorted(folder.glob(EVALUATIONS[0]))}
    own = folder / OWN
    if own.is_file():
        files = {"gated model": own, **files}
    found = {name: read_part(path, "comparison") for name, path in files.items()}
    return {name: comparison for name, comparison in found.items() if comparison}


def read_part(path: Path, key: str) -> Any:
    """One part of a JSON file."""
    try:
        return json.loads(path.read_text())[key]
    except (OSError, ValueError) as error:
        raise InputError(f"is not JSON: {error}", path=path) from error
    except (KeyError, TypeError, IndexError) as error:
        raise InputError("expected the results of an evaluation", path=path, field=key) from error
