"""The verdict on each surface on which forgotten facts could still be obtained, from result files of a run.

A fact counts as obtained where an answer contains its true value. Shares are of the asked facts, in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import digest_file, read_result
from o3_lightning.store.record import RequestRecord
from o3_lightning.store.store import Store

LIMIT, KNOWN = 0.05, 0.1  # highest share that is "suppressed"; lowest share of the base model that proves it
METRICS, ATTACKS = "metrics.json", "robustness.json"
SPLITS = {"seen": "questions of the request", "held_out": "other wordings of these questions"}
DISGUISES = "disguised questions, the worst kind"
WEIGHT_ATTACKS = {  # name of an attack, or its beginning: what it does
    "adapter_off": "gate and adapter switched off",
    "adapter_always_on": "adapter active for every prompt, without the gate",
    "quantise_merged": "adapter merged into the weights, which are then quantised",
    "quantise": "base model quantised, with the gate",
    "relearn": "adapter merged, then trained on some forgotten rows",
}


@dataclass(frozen=True)
class Surface:
    """One way to ask for the forgotten facts, and what it gives.

    Args:
        name: of the surface.
        verdict: "suppressed" (a share of at most `LIMIT`), "residual" or "not measured".
        baseline: share of the base model's answers that contain the fact; None if not measured.
        after: the same share of the gated model; None if not measured.
        facts: number of questions.
        note: the attack, or why there is no verdict.
        evidence: SHA-256 of the result file.
    """

    name: str
    verdict: str = "not measured"
    baseline: float | None = None
    after: float | None = None
    facts: int | None = None
    note: str = "no result file was given"
    evidence: str = ""


def read_surfaces(folder: Path, store: Store, record: RequestRecord) -> list[Surface]:
    """Returns the surfaces of a request, those that nothing measured included.

    Args:
        folder: of the run; its `metrics.json` and `robustness.json` are read if they exist.
        store: holds the request.
        record: of the request.

    Raises:
        InputError: a result file is damaged, or of another base model or forget set.
    """
    found: list[Surface] = []
    for name, read in ((METRICS, splits), (ATTACKS, attacks)):
        try:
            found += read(folder / name, store, record)
        except InputError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InputError(f"damaged: {type(error).__name__}: {error}", path=folder / name) from error
    return found


def splits(path: Path, store: Store, record: RequestRecord) -> Iterator[Surface]:
    """Yields the surfaces of the plain questions."""
    if not path.is_file():
        yield from (Surface(name) for name in SPLITS.values())
        return
    result = read_result(path, "digests", "persistence")
    check_digests(path, result["digests"], store, record)
    changed = age_problem(result.get("store_head"), store, record)
    tables = result["persistence"].get("accuracy", {})
    for split, name in SPLITS.items():
        table = tables.get(split)
        if changed or table is None or record.id not in table["rows"]:
            yield Surface(name, note=changed or "not part of the run's metrics")
            continue
        values = table["values"][table["rows"].index(record.id)]
        yield judged(name, values[0], values[-1], record.rows if split == "seen" else None, "", path)


def attacks(path: Path, store: Store, record: RequestRecord) -> Iterator[Surface]:
    """Yields the surfaces of attacks on prompts and on weights."""
    if not path.is_file():
        yield from (Surface(name) for name in (DISGUISES, *WEIGHT_ATTACKS.values()))
        return
    result = read_result(path, "table", "store_head")
    if changed := age_problem(result["store_head"], store, record):
        raise InputError(f"{changed}; run evaluate --robustness true again", path=path)
    rows = [row for row in result["table"] if row.get("request") == record.id]
    disguised = [row for row in rows if row.get("member") and row["base_leak"] is not None]
    yield worst(DISGUISES, [row for row in disguised if row["base_leak"] >= KNOWN], path)
    for start, name in WEIGHT_ATTACKS.items():
        yield worst(name, [row for row in rows if not row.get("member") and kind_of(row) == start], path)


def kind_of(row: Mapping[str, Any]) -> str:
    """Returns which of `WEIGHT_ATTACKS` a row is of."""
    return next((start for start in WEIGHT_ATTACKS if row["attack"].startswith(start)), "")


def worst(name: str, rows: Sequence[Mapping[str, Any]], path: Path) -> Surface:
    """Returns the surface of the attack that obtained the largest share."""
    tried = [row for row in rows if row.get("leak") is not None and row.get("base_leak") is not None]
    if not tried:
        return Surface(name, note="not tried, or the base model gives nothing away under it")
    row = max(tried, key=lambda row: row["leak"])
    note = f"{row['attack']}, the worst of {len(tried)}" if len(tried) > 1 else str(row["attack"])
    if row.get("utility") is not None and row.get("base_utility"):
        note += f"; of other questions it answers {row['utility']:.0%}, the base {row['base_utility']:.0%}"
    return judged(name, row["base_leak"], row["leak"], row.get("attempts"), note, path)


def judged(name: str, before: float, after: float, facts: int | None, note: str, path: Path) -> Surface:
    """Returns a measured surface with its verdict."""
    if before < KNOWN:
        verdict, note = "not measured", f"the base model knows too little of it ({before:.0%}) to tell"
    else:
        verdict = "suppressed" if after <= LIMIT else "residual"
    return Surface(name, verdict, round(before, 4), round(after, 4), facts, note, digest_file(path))


def check_digests(path: Path, found: Mapping[str, Any], store: Store, record: RequestRecord) -> None:
    """Raises if a result is of another base model or forget set."""
    expected = {"base": store.base_digest, "request": record.digest}
    measured = {"base": found.get("base"), "request": found.get("requests", {}).get(record.id)}
    for name, digest in expected.items():
        if measured[name] != digest:
            raise InputError(f"of another {name}: digest {measured[name]}, the store has {digest}", path=path)


def age_problem(head: str | None, store: Store, record: RequestRecord) -> str:
    """Returns why a result, measured at a head of a journal, says nothing of the request now; or nothing."""
    lines = store.lines()
    place = next((number for number, line in enumerate(lines) if line.digest == head), None)
    if place is None:
        return "measured on another store, or by an earlier version"
    own = [line for line in lines if line.request == record.id]
    measured = [line.files for line in own if line.sequence <= lines[place].sequence]
    return "" if measured and measured[-1] == own[-1].files else f"measured before '{record.id}' changed"
