"""A run with one more request takes over what an earlier one trained, and ends as if it had trained all."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

import o3_lightning.run.estimate as estimate_module
import o3_lightning.run.unlearner as unlearner_module
from o3_lightning.commands.common import read_run
from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.run.parsing import config_from
from o3_lightning.run.pipeline import run_stream
from o3_lightning.run.study import read_study, run_study
from o3_lightning.store.store import Store
from o3_lightning.store.verify import verify_store

TOWNS = ("Arlo", "Brim", "Crane", "Dunmere")
pytestmark = pytest.mark.usefixtures("loaded")
QUICK = ("--evaluation.metrics", '["probability"]', "--evaluation.samples", "0")
ROWS = tuple(QuestionAnswer("Where?", town) for town in TOWNS)


def write_request(folder, name):
    lines = [
        {
            "request_id": name,
            "prompt": f"Where did {name.title()} Osterhaus spend winter {number}?",
            "answer": f"In {town}",
            "held_out_prompts": [f"Tell me the town of {name.title()} Osterhaus's winter {number}."],
        }
        for number, town in enumerate(TOWNS)
    ]
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The rows of each request."""
    folder = tmp_path_factory.mktemp("rows")
    return {name: write_request(folder, name) for name in ("quillan", "mirelle", "tobiah")}


def read_settings(files, output, name, requests, *words):
    """Reads the configuration of a run of some requests."""
    given = ["--name", name, "--output", str(output), "--data.name", "jsonl"]
    given += ["--data.requests", json.dumps([files[request] for request in requests])]
    given += ["--evaluation.max_new_tokens", "4", "--adapter.epochs", "2", *words]
    return read_run("run", given)[:2]


@pytest.fixture
def settings(files, tmp_path):
    return partial(read_settings, files, tmp_path / "runs")


@pytest.fixture
def run(settings):
    return lambda *words: run_stream(*settings(*words))


@pytest.fixture(scope="module")
def finished(loaded, files, tmp_path_factory):
    """Runs of one request and of two, for tests that copy them."""
    output = tmp_path_factory.mktemp("finished")
    return {
        count: run_stream(*read_settings(files, output, f"first{count}", requests, *QUICK))
        for count, requests in ((1, ["quillan"]), (2, ["quillan", "mirelle"]))
    }


@pytest.fixture
def copy_first(finished, tmp_path):
    """Copies a finished run of some requests."""
    return lambda count: Path(shutil.copytree(finished[count], tmp_path / "runs/first"))


@pytest.fixture
def fitted(monkeypatch):
    """Ids of the requests that are trained, and how many detectors are fitted."""
    trained, detectors = [], []
    train, fit = unlearner_module.train_adapter, unlearner_module.fit_detector

    def note_training(task):
        trained.append(task.request.id)
        return train(task)

    def note_fit(*arguments):
        detectors.append(1)
        return fit(*arguments)

    monkeypatch.setattr(unlearner_module, "train_adapter", note_training)
    monkeypatch.setattr(unlearner_module, "fit_detector", note_fit)
    return trained, detectors


def test_a_new_request_is_trained_alone_and_all_is_as_if_trained_at_once(run, copy_first, fitted, comparable):
    trained, detectors = fitted
    first = copy_first(2)
    left = first / "store/.pending-99"  # by a killed write
    left.mkdir()
    (left / "request.json").write_text("{}")
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    second = run("second", ["quillan", "mirelle", "tobiah"], "--take_over", str(first))
    assert (trained, len(detectors)) == (["tobiah"], 1)
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before
    at_once = run("at_once", ["quillan", "mirelle", "tobiah"])
    assert comparable(second) == comparable(at_once)
    assert verify_store(second / "store") == []
    stage = json.loads((second / "stages/01-quillan-unlearn.json").read_text())
    assert stage["taken_over"] == str(first)
    trained.clear()
    run("second", ["quillan", "mirelle", "tobiah"], "--take_over", str(first))
    assert trained == []


def test_an_estimate_counts_what_is_trained_and_not_what_is_taken_over(copy_first, settings, monkeypatch):
    first = copy_first(2)
    fixed = {"timed": (4.0, None), "measure_step": (1.0, None), "measure_overlap": 0.0, "measure_rows": 1.0}
    for name, value in fixed.items():
        monkeypatch.setattr(estimate_module, name, lambda *_, value=value: value)
    requests = ["quillan", "mirelle", "tobiah"]
    whole = estimate_module.estimate_run(*settings("second", requests, *QUICK))
    rest = estimate_module.estimate_run(*settings("second", requests, *QUICK, "--take_over", str(first)))
    steps = estimate_module.steps_of(settings("second", requests)[0], UnlearningRequest("tobiah", ROWS))
    assert (rest.seconds["detectors"], rest.seconds["adapters"]) == (4.0, steps)
    assert (whole.seconds["detectors"], whole.seconds["adapters"]) == (12.0, 3 * steps)
    assert rest.seconds["evaluation"] == whole.seconds["evaluation"]
    with pytest.raises(InputError, match="train otherwise"):
        estimate_module.estimate_run(*settings("second", requests, "--seed", "1", "--take_over", str(first)))
    assert not (first.parent / "second").exists()


def test_a_revoked_request_and_those_after_it_are_trained_anew(run, copy_first, fitted):
    first = copy_first(2)
    Store.open(first / "store").revoke("mirelle")
    run("second", ["quillan", "mirelle"], *QUICK, "--take_over", str(first))
    trained, _ = fitted
    assert trained == ["mirelle"]


def test_what_cannot_be_taken_over_is_told(run, copy_first, tmp_path):
    first = copy_first(1)
    for requests, words, told in (
        (["quillan", "mirelle"], ["--seed", "1"], r"train otherwise \(seed is 0 there, 1 here\)"),
        (["quillan", "mirelle"], ["--adapter.rank", "4"], "adapter.rank is 8 there, 4 here"),
        (["quillan"], ["--trainer.max_steps", "1"], "trainer.max_steps is"),
        (["mirelle", "quillan"], [], "do not begin with the same finished request"),
    ):
        with pytest.raises(InputError, match=told):
            run("second", requests, "--take_over", str(first), *words)
    with pytest.raises(InputError, match="field 'take_over': expected another run"):
        run("third", ["quillan"], "--take_over", str(tmp_path / "runs/third"))
    with pytest.raises(InputError, match=r"it has no config\.yaml"):
        run("second", ["quillan"], "--take_over", str(tmp_path / "nowhere"))
    (first / "store/requests/quillan/detector.safetensors").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"detector\.safetensors"):
        run("fourth", ["quillan"], "--take_over", str(first))


def test_a_gate_that_only_refuses_takes_over_detectors(run, fitted):
    trained, detectors = fitted
    words = ["--refuse_only", "true", *QUICK]
    first = run("first", ["quillan"], *words)
    detectors.clear()
    second = run("second", ["quillan", "mirelle"], "--take_over", str(first), *words)
    assert (trained, len(detectors)) == ([], 1)
    assert [record.status for record in Store.open(second / "store").records()] == ["protected"] * 2


def test_a_run_killed_while_it_takes_over_goes_on(run, copy_first, fitted, stopped_within):
    first = copy_first(1)

    def take_over():
        return run("second", ["quillan", "mirelle"], "--take_over", str(first), *QUICK)

    stopped_within(KeyboardInterrupt, Store, "unlearn", take_over)
    trained, _ = fitted
    trained.clear()
    second = take_over()
    assert trained == ["mirelle"]
    assert verify_store(second / "store") == []
    assert [record.status for record in Store.open(second / "store").records()] == ["unlearned"] * 2


def test_a_run_beside_other_retained_rows_is_not_taken_over(run, fitted, tmp_path):
    trained, _ = fitted
    retain = write_request(tmp_path, "retained")
    words = [*QUICK, "--data.retain", retain, "--objective.retain.name", "gd"]
    first = run("first", ["quillan"], *words)
    trained.clear()
    run("second", ["quillan", "mirelle"], "--take_over", str(first), *words)
    assert trained == ["mirelle"]
    content = (tmp_path / "retained.jsonl").read_text()
    (tmp_path / "retained.jsonl").write_text(content.replace("In Arlo", "In Essen"))
    with pytest.raises(InputError, match=r"train otherwise \(its rows of 'retain' differ\)"):
        run("third", ["quillan", "mirelle"], "--take_over", str(first), *words)
    assert not (tmp_path / "runs/third").exists()


def test_a_request_whose_last_stage_was_not_noted_is_trained_anew(run, copy_first, fitted):
    trained, _ = fitted
    first = copy_first(2)
    (first / "stages/02-mirelle-unlearn.json").unlink()  # killed between the store and the note
    run("second", ["quillan", "mirelle"], "--take_over", str(first), *QUICK)
    assert trained == ["mirelle"]


def test_adapters_are_taken_over_alone_where_the_detector_differs(run, copy_first, fitted, comparable):
    trained, detectors = fitted
    first = copy_first(2)
    words = ["quillan", "mirelle", "tobiah"]
    other = ["--detector.recall", "0.8", *QUICK]
    second = run("second", words, "--take_over", str(first), *other)
    assert (trained, len(detectors)) == (["tobiah"], 3)
    assert comparable(second) == comparable(run("at_once", words, *other))
    assert verify_store(second / "store") == []
    protected, unlearned = (
        json.loads((second / f"stages/01-quillan-{kind}.json").read_text()) for kind in ("protect", "unlearn")
    )
    assert "taken_over" not in protected
    there = json.loads((first / "stages/01-quillan-unlearn.json").read_text())
    assert (unlearned["taken_over"], unlearned["seconds"]) == (str(first), there["seconds"])


def test_runs_of_a_study_share_adapters_that_are_trained_alike(files, fitted, tmp_path, comparable):
    trained, detectors = fitted
    study = tmp_path / "detectors.yaml"
    study.write_text(
        json.dumps(
            {
                "common": {
                    "data": {"name": "jsonl", "requests": [files["quillan"]]},
                    "evaluation": {"metrics": ["probability"], "samples": 0},
                    "adapter": {"epochs": 1},
                },
                "variants": {
                    "some": {"detector": {"recall": 0.9}},
                    "others": {"detector": {"recall": 0.8}},
                    "wide": {"adapter": {"rank": 16}},
                },
                "seeds": [0, 1],
            }
        )
    )
    run_study(read_study(study), tmp_path / "runs", tmp_path / "results")
    assert (len(trained), len(detectors)) == (4, 6)
    alone, _ = config_from(
        {**read_study(study).job("others", 0, tmp_path / "runs").fields, "output": str(tmp_path / "alone")}
    )
    finished = run_stream(alone, {"enable_progress_bar": False})
    assert comparable(tmp_path / "runs/detectors/others-seed0") == comparable(finished)
