"""The benchmark on several worlds: what is run, what is written, and a release that ended early."""

import json

import pytest

from benchmarks.release import authors
from benchmarks.release.__main__ import main
from o3_lightning.common.errors import InputError
from o3_lightning.data.fictitious import build_world


def result(accuracies):
    rounds = [
        {
            "probability_before": 0.9,
            "probability_after": 0.1,
            "known_after": 0.0,
            "drop": 0.01,
            "known_rows": 3,
            "queries": 2,
            "measured": {"held_out": value},
            "steps": [{"lambda": 2.0}, {"lambda": None}],
            "seconds": 1.0,
        }
        for value in accuracies
    ]
    return {"stopped": "why", "base": {"measured": {"held_out": 1.0}}, "rounds": rounds, "seconds": 4.0}


def test_the_first_authors_of_each_world_are_released_in_folders_of_their_own(config, tmp_path, monkeypatch):
    asked, found = [], iter([result([0.5, 0.0]), result([0.25]), result([0.0, 0.0]), result([0.0, 0.75])])
    monkeypatch.setattr(
        authors, "release", lambda own, trainer, folder: asked.append((own, folder)) or next(found)
    )
    path = tmp_path / "results.json"
    lines = authors.benchmark_release(config, {}, path, seeds=[3, 5], authors=2)
    names = [author.name for seed in (3, 5) for author in build_world(seed).authors[:2]]
    assert [(own.seed, own.topic, own.measure) for own, _ in asked] == [
        (seed, name, "fictitious") for seed, name in zip([3, 3, 5, 5], names, strict=True)
    ]
    assert len({folder for _, folder in asked}) == 4
    content = json.loads(path.read_text())
    assert [row["author"] for row in content["authors"]] == names
    assert content["authors"][0]["rounds"][0]["lambdas"] == [2.0, None]
    assert content["after"]["round 1"]["held_out"] == pytest.approx([0.1875, 0.2393568])
    # the second author's release had one round: it counts there as it was left
    assert content["after"]["round 2"]["held_out"] == pytest.approx([0.25, 0.3535534])
    assert lines[0] == "base: held_out 1.000 ± 0.000"


def test_one_author_has_no_deviation():
    row = {"base": {"others": 1.0}, "rounds": [{"measured": {"others": 0.5}}]}
    assert authors.spread([row]) == {"base": {"others": (1.0, 0.0)}, "round 1": {"others": (0.5, 0.0)}}


@pytest.mark.parametrize(("field", "value"), [("authors", "0"), ("worlds", "[-1]")])
def test_a_number_out_of_range_is_told(field, value):
    with pytest.raises(InputError, match=f"field '{field}'"):
        main([f"--{field}", value])
