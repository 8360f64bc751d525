"""Runs side by side: the page, its warnings, the long table, and what the command refuses."""

import copy
import csv
import io
import json
import re
import shutil

import pytest
import yaml

from o3_lightning.commands.cli import main
from o3_lightning.evaluation.figures import place_on_plane
from o3_lightning.metrics.registry import METRICS
from o3_lightning.reporting.compare import ComparedRun, render_comparison, warnings_of
from o3_lightning.reporting.long_form import COLUMNS, long_form


def metrics_of(held_out=0.0, base="a" * 8):
    matrix = {"rows": ["one"], "columns": ["base", "one"], "values": [[1.0, held_out]]}
    side = {"value": 0.5, "low": 0.25, "high": 0.75, "rows": 12}
    return {
        "benchmark": "fictitious",
        "requests": ["one"],
        "columns": ["base", "one"],
        "persistence": {"accuracy": {"held_out": matrix}},
        "utility": {"kept": [1.0, 0.875]},
        "utility_metrics": {"accuracy": {"kept": [1.0, 0.875]}},
        "detector": {"one": {"kept": {"auroc": 0.99}}},
        "plane": {name: {"forget": side, "utility": side} for name in ("base", "end")},
        "digests": {"base": base, "encoder": "e", "requests": {"one": "f"}},
        "intervals": {"one": {"held_out": {"accuracy": [None, [0.125, 0.5]]}}},
        "u2r": 8.0,
        "seconds": {"01-one-unlearn": 2.0},
        "peak_memory_mib": 100.0,
    }


def run_of(name, **changes):
    settings = {"name": name, "seed": 0, "gate": {"combine": name}}
    return ComparedRun(name, metrics_of(**changes), settings)


@pytest.fixture
def folders(tmp_path):
    for name, value in (("first", 0.0), ("second", 0.25)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "metrics.json").write_text(json.dumps(metrics_of(value)))
        (folder / "config.yaml").write_text(yaml.safe_dump({"gate": {"combine": name}}))
    return tmp_path


def test_page_shows_every_run_and_only_the_settings_that_differ():
    page = render_comparison([run_of("max"), run_of("routed", held_out=0.25)])
    assert re.search(r"held_out</th><td>0\.000</td><td>0\.250", page)
    assert re.search(r"Gate</th><td>0\.990</td><td>0\.990", page)
    assert "gate.combine" in page
    assert "seed" not in page.split('id="settings"')[1]
    assert page.count("<circle") == 3
    assert "cannot be compared" not in page


def test_runs_of_other_models_or_requests_are_told_apart():
    other = run_of("b", base="other")
    assert warnings_of([run_of("a"), other]) == [
        "The runs differ in the base model: their numbers cannot be compared."
    ]
    metrics = copy.deepcopy(dict(other.metrics))
    metrics["requests"] = ["two"]
    assert len(warnings_of([run_of("a"), ComparedRun("b", metrics, {})])) == 2


def test_long_table_holds_every_number_once():
    rows = list(csv.DictReader(io.StringIO(long_form(metrics_of(0.25)))))
    assert tuple(rows[0]) == COLUMNS
    found = {
        (row["kind"], row["request"], row["split"], row["metric"], row["column"]): row["value"]
        for row in rows
    }
    assert len(found) == len(rows) == 8
    assert found["forget", "one", "held_out", "accuracy", "one"] == "0.25"
    assert found["utility", "", "kept", "accuracy", "one"] == "0.875"
    assert found["detector", "one", "kept", "auroc", "one"] == "0.99"
    assert [(row["low"], row["high"]) for row in rows[:3]] == [("", ""), ("0.125", "0.5"), ("", "")]


def test_the_command_writes_a_page_that_needs_nothing_else(folders, capsys):
    page = folders / "page.html"
    main(["report", "--compare", str(folders / "first"), str(folders / "second"), "--out", str(page)])
    text = page.read_text()
    assert "first" in text
    rows = list(csv.DictReader(io.StringIO(page.with_suffix(".csv").read_text())))
    assert {row["run"] for row in rows} == {"first", "second"}
    assert len(rows) == 16
    assert "http" not in text
    assert "<script" not in text


def test_the_plugins_of_a_run_describe_their_metrics(folders, caplog):
    plugin = folders / "plugin_of_a_run.py"
    plugin.write_text(
        "from o3_lightning.metrics.registry import metric\n"
        '@metric("report_words", "answers", meaning="words of an answer")\n'
        "def count(answers):\n    return [float(len(one.split())) for one in answers]\n"
    )
    for name, path in (("first", plugin), ("second", folders / "gone.py")):
        (folders / name / "config.yaml").write_text(json.dumps({"plugins": [str(path)]}))
    page = folders / "page.html"
    main(["report", "--compare", str(folders / "first"), str(folders / "second"), "--out", str(page)])
    assert METRICS["report_words"].meaning == "words of an answer"
    assert "gone.py" in caplog.text
    assert page.is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compare", "first"], "two runs or more, got 1"),
        (["--compare", "first", "first"], "named twice"),
        (["--compare", "first", "nowhere"], "no finished run"),
        (["--compare", "first", "broken"], "is not JSON"),
        (["--compare", "first", "other"], "field 'persistence'"),
        ([], "give one run's folder"),
        (["first", "--compare", "first", "second"], "give one run's folder"),
    ],
)
def test_what_is_not_a_run_is_refused_in_one_line(words, message, folders, monkeypatch, capsys):
    for name, text in (("broken", "{"), ("other", '{"requests": []}')):
        shutil.copytree(folders / "first", folders / name)
        (folders / name / "metrics.json").write_text(text)
    monkeypatch.chdir(folders)
    with pytest.raises(SystemExit) as stop:
        main(["report", *words])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_places_pool_the_rows_and_hold_wilsons_interval():
    rows = {"values": {"accuracy": [1.0] * 3 + [0.0] * 7}}
    measured = {
        "requests": {"a": {"seen": rows, "held_out": rows}, "b": {"seen": rows}},
        "utility": {"kept": {"values": {"accuracy": [1.0] * 10}}, "more": {"values": {}}},
    }
    place = place_on_plane(measured)
    assert (place["forget"]["value"], place["forget"]["rows"]) == (0.3, 10)
    assert place["forget"]["low"] == pytest.approx(0.1078, abs=1e-4)  # Wilson, 3 of 10
    assert place["forget"]["high"] == pytest.approx(0.6032, abs=1e-4)
    assert place["utility"]["low"] == pytest.approx(0.7225, abs=1e-4)
    assert place_on_plane({"requests": {}, "utility": {}}) == {}
