"""`requests remove` deletes what a run's folder keeps of a request, and keeps the figures and the others."""

import json

import pytest

from o3_lightning.commands.requests import main
from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.store import Store

SECRET = "Quillan spent winter in Skarnwick"


@pytest.fixture
def run(tmp_path):
    """A run's folder with two requests; every result holds texts of both."""
    folder = tmp_path / "run"
    store = Store.create(folder / "store", "base", "b" * 64, "encoder", "e" * 64)
    for name in ("gone", "kept"):
        store.register(UnlearningRequest(name, (QuestionAnswer("a", "b"),)), {})
    split = {"aggregate": {"accuracy": 0.5}, "samples": [{"prompt": "?", "answer": SECRET}]}
    measured = {"requests": {name: {"seen": split} for name in ("gone", "kept")}, "utility": {"bees": split}}
    rows = [{"prompt": SECRET, "split": name, "weight": 1.0} for name in ("other_requests", "bees")]
    (folder / "stages").mkdir()
    files = {
        "stages/01-gone-evaluate.json": measured,
        "stages/detectors.json": {"mistakes": {"gone": rows, "kept": rows}},
        "evaluation.json": measured,
        "metrics.json": {"requests": ["gone", "kept"]},
        "config.yaml": "name: run",
        "report.html": SECRET,
        "unfinished/gone.safetensors": SECRET,
        "unfinished/kept.safetensors": "",
        "single/gone/detector.json": SECRET,
        "robustness.parts/0/plain.json": SECRET,
        ".report.html.0a1b2c3d.tmp": SECRET,
        "stages/.01-gone-evaluate.json.0a1b2c3d.tmp": SECRET,
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_a_removed_request_takes_its_texts_along(run, capsys):
    main(["remove", "gone", "--store", str(run / "store")])
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "gone: removed"
    for name in ("evaluation.json", "stages/detectors.json", "report.html", "unfinished/gone.safetensors"):
        assert name in printed
    measured = json.loads((run / "evaluation.json").read_text())
    assert measured["requests"]["gone"]["seen"] == {"aggregate": {"accuracy": 0.5}, "samples": []}
    assert measured["requests"]["kept"]["seen"]["samples"] == measured["utility"]["bees"]["samples"] != []
    mistakes = json.loads((run / "stages/detectors.json").read_text())["mistakes"]
    assert mistakes["gone"] == []
    assert [row["split"] for row in mistakes["kept"]] == ["bees"]
    left = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert not left & {"report.html", "unfinished/gone.safetensors", "single/gone/detector.json"}
    assert "unfinished/kept.safetensors" in left
    assert not [name for name in left if "robustness.parts" in name or name.endswith(".tmp")]


def test_a_damaged_result_is_named_before_the_request_is_removed(run):
    (run / "evaluation.json").write_text("{")
    with pytest.raises(InputError, match=r"evaluation.json: is not JSON"):
        main(["remove", "gone", "--store", str(run / "store")])
    assert [record.id for record in Store.open(run / "store").records()] == ["gone", "kept"]


def test_a_damaged_request_can_be_removed(run):
    (run / "store" / "requests" / "gone" / "request.json").write_text("{")
    main(["remove", "gone", "--store", str(run / "store")])
    assert [record.id for record in Store.open(run / "store").records()] == ["kept"]
    assert not (run / "report.html").exists()


def test_a_removal_that_was_killed_is_finished_by_the_same_command(run, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr("o3_lightning.store.transaction.Session.finish", lambda *_: exit(1))
        with pytest.raises(SystemExit):
            main(["remove", "gone", "--store", str(run / "store")])
    assert (run / "store/requests/gone").is_dir()
    (run / "report.html").write_text(SECRET)
    main(["remove", "gone", "--store", str(run / "store")])
    assert capsys.readouterr().out.endswith("gone: removed\n")
    assert not (run / "store/requests/gone").exists()
    assert not (run / "report.html").exists()


def test_an_unknown_request_cleans_nothing(run):
    with pytest.raises(InputError, match="no request 'ghost'"):
        main(["remove", "ghost", "--store", str(run / "store")])
    assert (run / "report.html").is_file()
