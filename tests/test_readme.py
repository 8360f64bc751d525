"""What the README shows of a study is what its results file says."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHOWN = ("baselines", "gate_rules")  # whole tables, as the study wrote them


@pytest.mark.parametrize("name", SHOWN)
def test_rows_of_a_shown_study_are_those_of_its_results(name):
    rows = [line for line in (ROOT / f"results/{name}.md").read_text().splitlines() if line.startswith("| `")]
    names = [row.split("|")[1] for row in rows]
    section = README.split(f"experiments/{name}.yaml`", 1)[1].split("\n## ", 1)[0]
    shown = [line for line in section.splitlines() if line.startswith("| ") and line.split("|")[1] in names]
    assert shown
    assert shown == rows


def test_every_file_that_the_readme_names_is_there():
    named = {word.strip("`()[],.") for word in README.split() if word.startswith(("`configs/", "`results/"))}
    missing = [
        name for name in named if not any(sign in name for sign in "{*") and not (ROOT / name).exists()
    ]
    assert not missing
