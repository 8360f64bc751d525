"""What the README shows of a study is what its results file says."""

import json
from pathlib import Path

import pytest

from benchmarks.detector.measures import PAIRS, WEIGHTS, pair_cell, weight_cell

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHOWN = ("baselines", "gate_rules")  # whole tables, as the study wrote them


@pytest.mark.parametrize("name", SHOWN)
def test_rows_of_a_shown_study_are_those_of_its_results(name):
    rows = [line for line in (ROOT / f"results/{name}.md").read_text().splitlines() if line.startswith("| `")]
    names = [row.split("|")[1] for row in rows]
    section = README.split(f"experiments/{name}`", 1)[1].split("\n## ", 1)[0]
    shown = [line for line in section.splitlines() if line.startswith("| ") and line.split("|")[1] in names]
    assert shown
    assert shown == rows


def test_tables_of_the_detectors_are_those_of_their_results():
    results = json.loads((ROOT / "results/detector.json").read_text())
    lines = set(README.splitlines())
    for task, measured in results["tasks"].items():
        name = task if results["roles"][task] == "development" else f"{task} *"
        own = measured["default"]
        cells = [pair_cell(own.get(pair)) for pair in PAIRS]
        cells.append(" / ".join(weight_cell(own.get(split)) for split in WEIGHTS))
        assert f"| {name} | {' | '.join(cells)} |" in lines
        beside = [
            measured[label]
            for label in ("default", "cosine_maha_lexical", "paper_untrained", "official_untrained")
        ]
        cells = [f"{pair_cell(one[PAIRS[0]])}, {weight_cell(one['near'])}" for one in beside]
        assert f"| {name} | {' | '.join(cells)} |" in lines


def test_the_table_of_releases_is_that_of_their_results():
    after = json.loads((ROOT / "results/release_authors.json").read_text())["after"]
    lines = set(README.splitlines())
    for name, splits in after.items():
        cells = [
            "{:.3f} ± {:.3f}".format(*splits[split]) for split in ("held_out", "seen", "others", "general")
        ]
        assert f"| {name} | {' | '.join(cells)} |" in lines


def test_every_file_that_the_readme_names_is_there():
    named = {word.strip("`()[],.") for word in README.split() if word.startswith(("`configs/", "`results/"))}
    missing = [
        name for name in named if not any(sign in name for sign in "{*") and not (ROOT / name).exists()
    ]
    assert not missing
