"""Results of other commands in a run's folder: reads them, and shows attacks and references as sections."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import read_result
from o3_lightning.common.program import program_name
from o3_lightning.evaluation.figures import Place, place_on_plane
from o3_lightning.evaluation.tables import attack_summary, pool_requests
from o3_lightning.reporting.blocks import Block, Fold, Heat, Section, Table, heat_cell, section
from o3_lightning.reporting.formatting import DASH, fraction, name_of, number, percent

EVALUATIONS = ("evaluation-*.json", "reference-*.json")
SIDES = {"forget", "utility"}
NAMED = {"attack", "request"}


def read_attacks(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of `robustness.json`; none where no attack was tried.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / "robustness.json"
    rows = read_result(path, "table")["table"] if path.is_file() else []
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= NAMED for row in rows):
        raise InputError("expected rows with an attack and a request", path=path, field="table")
    return rows


def read_places(folder: Path) -> dict[str, Place]:
    """Returns the place on the plane of every other model that was evaluated on the run's data, by name.

    An evaluation of "peer" is named "peer", a reference "peer (reference)". A model without accuracy on both
    sides has no place.

    Raises:
        InputError: a file is damaged.
    """
    places = {}
    for pattern in EVALUATIONS:
        for path in sorted(folder.glob(pattern)):
            kind, name = path.stem.split("-", 1)
            place = place_on_plane(read_result(path, "requests", "utility"))
            if set(place) >= SIDES:
                places[f"{name} (reference)" if kind == "reference" else name] = place
    return places


def read_comparisons(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Returns the comparison of each evaluated model with its reference, by name; the run's own comes first.

    Raises:
        InputError: a file is damaged.
    """
    files = {path.stem.split("-", 1)[1]: path for path in sorted(folder.glob(EVALUATIONS[0]))}
    own = folder / "evaluation.json"
    if own.is_file():
        files = {"gated model": own, **files}
    found = {name: read_result(path, "comparison")["comparison"] for name, path in files.items()}
    return {name: comparison for name, comparison in found.items() if comparison}


Found = dict[str, list[Any]]


def reference_section(comparisons: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Section:
    """Returns tables of forget quality and membership inference, from each model's `comparison` by split."""
    quality, membership = (by_split(comparisons, key) for key in ("forget_quality", "membership"))
    blocks: list[Block] = []
    if quality[1]:
        rows = []
        for split, tests in quality[1].items():
            cells = [f"{fraction(t['statistic'])} (p {number(t['p_value'])})" if t else DASH for t in tests]
            rows.append([split, *cells])
        blocks.append(Table("Forget quality: KS distance", ["Forget set", *quality[0]], rows))
    models, audits = by_split(comparisons, "closeness")
    if audits:
        title = "Share of rows nearer to the reference than to the base model, and unlearning depth"
        nearer = [
            [split, *(f"{fraction(a['nearer'])}, {fraction(a['depth'])}" if a else DASH for a in parts)]
            for split, parts in audits.items()
        ]
        blocks.append(Table(title, ["Forget set", *models], nearer))
    if membership[1]:
        columns = ["Forget set and attack", "reference", *membership[0]]
        rows = membership_rows(membership[1])
        table = Table("AUC, and privleak", columns, rows)
        blocks.append(Fold("Membership inference", [table], open=not quality[1]))
    return section("reference", blocks, {"program": program_name()})


def by_split(comparisons: Mapping[str, Mapping[str, Mapping[str, Any]]], key: str) -> tuple[list[str], Found]:
    """The models with one kind of comparison, and by readable split each model's, None where it has none."""
    models = [model for model, parts in comparisons.items() if any(key in part for part in parts.values())]
    splits = dict.fromkeys(
        split for parts in comparisons.values() for split, part in parts.items() if key in part
    )
    found: Found = {}
    for split in splits:
        owner, _, name = split.rpartition("/")
        values = [comparisons[model].get(split, {}).get(key) for model in models]
        found[f"{owner}, {name_of(name).lower()}"] = values
    return models, found


def membership_rows(found: Found) -> list[list[str]]:
    """A row per forget set and attack: the reference's AUC, then AUC and privleak of each model."""
    rows = []
    for split, parts in found.items():
        for attack in dict.fromkeys(name for part in parts for name in part or ()):
            values = [(part or {}).get(attack) for part in parts]
            reference = next((value["reference_auc"] for value in values if value), None)
            cells = [
                f"{fraction(v['auc'])} ({percent(v['privacy_leak'] / 100, sign=True)})" if v else DASH
                for v in values
            ]
            rows.append([f"{split}, {attack.removeprefix('mia_')}", fraction(reference), *cells])
    return rows


Row = Mapping[str, Any]
SHOWN = 12  # attacks above the fold
COLUMNS = {
    "leak": "Leak",
    "base_leak": "Base model",
    "caught": "Caught",
    "false_alarm": "False alarms",
    "utility": "Utility",
    "base_utility": "Base utility",
}


def robustness_section(table: Sequence[Row]) -> Section:
    """Returns the rows of `Robustness.run` as tables over all requests, the largest leak first, and a map."""
    rows = pool_requests(table)
    proving, silent = ([row for row in rows if row["proves"] == proves] for proves in (True, False))
    blocks: list[Block] = []
    if rows:
        blocks = [*summary_table(table), leak_table("Largest leaks", proving[:SHOWN])]
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in proving:
            groups.setdefault(name_of(str(row["group"] or "other")), []).append(row)
        if silent:
            groups["Base leak below 5 %: nothing proved"] = silent
        blocks += [
            Fold(title, [leak_table("", some)], note=f"{len(some)} attacks") for title, some in groups.items()
        ]
        blocks.append(Fold("Leak by request", [leak_map(table)]))
    return section("robustness", blocks, {"program": program_name()})


def summary_table(table: Sequence[Row]) -> list[Table]:
    """The figures over all kinds by member; nothing without prompt attacks."""
    columns = ["Members", "Kinds", "Leak of base", "Worst kind", "Caught", "False alarms"]
    lines = [
        [
            name_of(member),
            f"{found['kinds']} ({found['proving']} with a base leak of 5 % or more)",
            fraction(found["leak_of_base"]),
            f"{name_of(found['worst'])}: {fraction(found['worst_leak'])}",
            fraction(found["caught"]),
            fraction(found["false_alarm"]),
        ]
        for member, found in attack_summary(table).items()
    ]
    return [Table("All kinds of prompt attacks", columns, lines)] if lines else []


def leak_table(caption: str, rows: Sequence[Row]) -> Table:
    """One line per attack."""
    lines = [
        [name_of(row["attack"]), row["member"] or DASH, *(fraction(row[key]) for key in COLUMNS)]
        for row in rows
    ]
    return Table(caption, ["Attack", "Member", *COLUMNS.values()], lines)


def leak_map(table: Sequence[Row]) -> Heat:
    """The leak of every request under every attack."""
    requests = list(dict.fromkeys(str(row["request"]) for row in table))
    leaks: dict[str, dict[str, Any]] = {}
    for row in table:
        label = f"{name_of(row['attack'])}{', test' if row.get('member') == 'test' else ''}"
        leaks.setdefault(label, {})[str(row["request"])] = row.get("leak")
    cells = [(label, [heat_cell(found.get(name)) for name in requests]) for label, found in leaks.items()]
    return Heat("", requests, cells)
