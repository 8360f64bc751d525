"""The continual loop on a tiny model: what it writes, that a kill changes nothing, what it never reads."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import o3_lightning.run.inputs as inputs_module
import o3_lightning.run.pipeline as stream_module
import o3_lightning.run.unlearner as unlearner_module
from o3_lightning.commands.cli import main
from o3_lightning.commands.common import read_run
from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.stream import RequestStream
from o3_lightning.models.lora import LoraFactors
from o3_lightning.objectives.config import ObjectiveConfig, RetainObjective
from o3_lightning.run.config import RunConfig
from o3_lightning.run.pipeline import run_stream
from o3_lightning.run.results import render_again
from o3_lightning.store.record import PROTECTED
from o3_lightning.store.store import Store
from o3_lightning.store.verify import verify_store
from o3_lightning.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("loaded")
QUICK = ("--evaluation.metrics", '["probability"]', "--evaluation.samples", "0")
TOWNS = ("Arlo", "Brim", "Crane", "Dunmere", "Eskdale", "Farrow")


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def rows(name, identifier=None):
    made = []
    for number, town in enumerate(TOWNS):
        row = {
            "prompt": f"Where did {name} spend winter {number}?",
            "answer": f"In {town}",
            "held_out_prompts": [f"Tell me the town of {name}'s winter {number}."],
            "perturbed_answers": ["In Gorse", "In Hythe"],
        }
        made.append(row | ({"request_id": identifier} if identifier else {}))
    return made


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def words_for(folder):
    """Writes two requests and the rows to keep, and returns the words of a run of them."""
    forget = write_lines(
        folder / "forget.jsonl",
        rows("Quillan Osterhaus", "quillan") + rows("Mirelle Vantongeren", "mirelle"),
    )
    retain = write_lines(folder / "retain.jsonl", rows("Tobiah Wexcombe"))
    words = ["--name", "tiny", "--output", str(folder / "runs"), "--data.name", "jsonl"]
    words += ["--data.requests", json.dumps([forget]), "--data.retain", retain]
    return [*words, "--evaluation.max_new_tokens", "4", "--adapter.epochs", "2"]


@pytest.fixture
def arguments(tmp_path):
    return words_for(tmp_path)


def start(arguments):
    config, trainer, _ = read_run("run", arguments)
    return run_stream(config, trainer)


@pytest.fixture(scope="module")
def finished(loaded, tmp_path_factory):
    """The words of a finished run, its folder, to which tests only add, and the history of each fit."""
    words, trained, real = words_for(tmp_path_factory.mktemp("finished")), {}, unlearner_module.train_adapter

    def watched(task):
        trained[task.request.id] = list(task.history.ids)
        return real(task)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unlearner_module, "train_adapter", watched)
        return words, start(words), trained


@pytest.fixture
def copied(finished, tmp_path):
    """A finished run that a test may change."""
    return Path(shutil.copytree(finished[1], tmp_path / finished[1].name))  # the report is titled by it


def test_a_gate_that_only_refuses_trains_no_adapter(arguments):
    folder = start([*arguments, "--refuse_only", "true", "--evaluation.metrics", '["accuracy"]'])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["adapters"], metrics["overlaps"]) == ({}, {})
    assert not list((folder / "store/requests").glob("*/adapter"))
    assert {row[-1] for row in metrics["persistence"]["accuracy"]["seen"]["values"]} == {0.0}
    assert (folder / "report.html").is_file()
    main(
        ["evaluate", "--config", str(folder / "config.yaml")]
    )  # there is no adapter to identify the model by
    assert (folder / "evaluation.json").is_file()


def test_only_the_owner_may_read_files_with_text_of_forget_sets(finished):
    told = [path for path in finished[1].rglob("*") if path.is_file() and b"Osterhaus" in path.read_bytes()]
    assert {path.name for path in told} >= {"report.html", "00-base-evaluate.json"}
    assert {path: oct(path.stat().st_mode & 0o777) for path in told} == dict.fromkeys(told, "0o600")


def test_a_run_without_samples_writes_no_text_of_forget_sets(arguments):
    folder = start([*arguments, *QUICK, "--refuse_only", "true", "--evaluation.samples", "0"])
    forgotten = [
        json.loads(line) for line in (folder.parent.parent / "forget.jsonl").read_text().splitlines()
    ]
    words = {word for row in forgotten for word in re.findall(r"[A-Z]\w{4,}", row["prompt"] + row["answer"])}
    assert words >= {"Quillan", "Osterhaus", "Vantongeren"}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes().decode(errors="replace")
        assert not [word for word in words if re.search(rf"\b{word}\b", content)], path


def test_without_detection_every_prompt_runs_through_the_newest_adapter(arguments):
    words = ["--adapter.mode", "cumulative", "--gate.combine", "last", "--gate.detect", "false"]
    folder = start([*arguments, *words, *QUICK, "--evaluation.samples", "1"])
    stage = json.loads((folder / "stages/02-mirelle-evaluate.json").read_text())
    sample = stage["utility"]["retain"]["samples"][0]
    assert sample["weights"] == {"quillan": 1.0, "mirelle": 1.0}


def test_a_run_writes_what_other_tools_rely_on(finished, capsys):
    words, folder, _ = finished
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["requests"] == ["quillan", "mirelle"]
    for split in ("seen", "held_out"):
        matrix = metrics["persistence"]["probability"][split]
        assert matrix["rows"] == ["quillan", "mirelle"]
        assert matrix["columns"] == ["base", "quillan", "mirelle"]
        assert [len(row) for row in matrix["values"]] == [3, 3]
    assert set(metrics["detector"]["quillan"]) >= {"seen", "held_out", "other_requests", "retain"}
    assert len(metrics["utility"]["retain"]) == 3
    for name in ("report.html", "config.yaml", "store/store.json", "logs"):
        assert (folder / name).exists()
    assert verify_store(folder / "store") == []
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}
    start(words)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}
    store = str(folder / "store")
    main(["requests", "list", "--store", store])
    assert "unlearned" in capsys.readouterr().out
    main(["ask", "--config", str(folder / "config.yaml"), "Where did Quillan Osterhaus spend winter 1?"])
    said = capsys.readouterr().out
    assert "base" in said
    assert "mirelle" in said
    main(["evaluate", "--config", str(folder / "config.yaml")])
    assert (folder / "evaluation.json").is_file()


def test_a_run_killed_at_every_stage_boundary_ends_with_the_same_metrics(
    finished, monkeypatch, tmp_path, comparable
):
    words, calm, _ = finished
    killed = [*words, "--output", str(tmp_path / "killed")]
    real = RunFolder.stage

    def dies_after(self, name, work):
        fresh = not (self.path / "stages" / f"{name}.json").exists()
        result = real(self, name, work)
        if fresh:
            raise Killed
        return result

    def dies_within(self, name, work):
        if (self.path / "stages" / f"{name}.json").exists():
            return real(self, name, work)
        work()
        raise Killed

    monkeypatch.setattr(RunFolder, "stage", dies_within)
    with pytest.raises(Killed):
        start(killed)
    monkeypatch.setattr(RunFolder, "stage", dies_after)
    for _ in range(9):
        with pytest.raises(Killed):
            start(killed)
    monkeypatch.setattr(RunFolder, "stage", real)
    folder = start(killed)
    assert comparable(folder) == comparable(calm)
    assert verify_store(folder / "store") == []


def test_every_request_is_protected_before_anything_is_measured(arguments, die_before_the_first_training):
    die_before_the_first_training([*arguments, *QUICK])
    store = next(Path(arguments[3]).rglob("store.json")).parent
    assert [record.status for record in Store.open(store).records()] == ["protected", "protected"]


def test_each_adapter_is_trained_against_those_before_it(finished):
    assert finished[2] == {"quillan": [], "mirelle": ["quillan"]}


def test_training_reads_no_retained_data_unless_it_is_declared(arguments):
    folder = start([*arguments, *QUICK])
    record = json.loads((folder / "store/requests/quillan/request.json").read_text())
    assert record["metrics"]["retained_rows_read"] == 0
    text = "".join(path.read_text() for path in (folder / "stages").glob("*.json"))
    assert "Arlo" not in text
    assert "Quillan" not in text


def test_each_request_counts_the_retained_rows_that_its_own_training_read(arguments):
    folder = start([*arguments, *QUICK, "--objective.retain.name", "gd"])
    records = [
        json.loads((folder / f"store/requests/{name}/request.json").read_text())
        for name in ("quillan", "mirelle")
    ]
    first, second = [record["metrics"]["retained_rows_read"] for record in records]
    assert first == second > 0


def test_a_declared_need_opens_the_retain_split_and_no_other():
    row = QuestionAnswer("Who?", "Nobody")
    splits = {"retain": (row,), "kept": (row,)}
    stream = RequestStream("made", (UnlearningRequest("a", (row,)),), splits)
    config = RunConfig(objective=ObjectiveConfig(retain=RetainObjective("kl")))
    utility = inputs_module.guard(stream, config).utility
    assert list(utility["retain"]) == [row]
    with pytest.raises(Exception, match="retained data 'kept' was read before evaluation"):
        list(utility["kept"])


def test_a_stage_that_cheats_is_stopped(arguments, monkeypatch):
    real = unlearner_module.fit_detector

    def cheat(encoder, prompts, config, seed):
        return real(encoder, [*prompts, bench_rows()[0].prompt], config, seed)

    held = {}
    guard = inputs_module.guard
    monkeypatch.setattr(inputs_module, "guard", lambda *args: held.setdefault("stream", guard(*args)))
    monkeypatch.setattr(unlearner_module, "fit_detector", cheat)

    def bench_rows():
        return held["stream"].utility["retain"]

    with pytest.raises(Exception, match="retained data 'retain' was read before evaluation"):
        start(arguments)


def test_a_folder_with_another_configuration_is_refused_and_kept(finished):
    words, folder, _ = finished
    with pytest.raises(InputError, match=r"adapter\.rank"):
        start([*words, "--adapter.rank", "2"])
    assert (folder / "metrics.json").is_file()


@pytest.fixture
def die_before_the_first_training(stopped_within):
    return lambda words: stopped_within(Killed, stream_module, "train", lambda: start(words))


def test_rows_to_measure_that_changed_since_a_run_began_are_told(
    arguments, tmp_path, die_before_the_first_training
):
    holdout = write_lines(tmp_path / "holdout.jsonl", rows("Ansgar Vell"))
    words = [*arguments, "--data.holdout", holdout, "--evaluation.metrics", '["accuracy", "mia_min_k"]']
    die_before_the_first_training(words)
    files = {name: tmp_path / f"{name}.jsonl" for name in ("retain", "holdout")}
    began = {name: file.read_text() for name, file in files.items()}
    for name, file in files.items():
        file.write_text(began[name].replace("In Arlo", "In Essen"))
        with pytest.raises(
            InputError, match=rf"tiny: this run began with .*{name}\.jsonl was changed.*--name"
        ):
            start(words)
        file.write_text(began[name])
    folder = start(words)
    for name, file in files.items():
        file.write_text(began[name].replace("In Arlo", "In Essen"))
        assert start(words) == folder  # a finished run has measured all of its rows


def test_a_split_that_came_since_a_run_began_is_told(arguments, monkeypatch, die_before_the_first_training):
    die_before_the_first_training(arguments)
    real = inputs_module.load_stream

    def with_more(config, seed):
        stream = real(config, seed)
        return replace(stream, utility={**stream.utility, "more": stream.utility["retain"]})

    monkeypatch.setattr(inputs_module, "load_stream", with_more)
    with pytest.raises(InputError, match="began with other rows to measure \\('more' is new\\)"):
        start(arguments)


def test_a_request_that_a_run_did_not_begin_with_is_never_passed_over(
    arguments, tmp_path, die_before_the_first_training
):
    words, forget = [*arguments, *QUICK], tmp_path / "forget.jsonl"
    began = forget.read_text()
    more = began + "".join(json.dumps(line) + "\n" for line in rows("Oriel Pemberwick", "oriel"))
    changes = {
        "'oriel' is new": more,
        "'mirelle' is gone": began[: began.index('{"prompt": "Where did Mirelle')],
        "'quillan' was changed": began.replace("winter 2?", "winter 9?", 1),
    }

    def refused():
        for message, content in changes.items():
            forget.write_text(content)
            with pytest.raises(InputError, match=message):
                start(words)
        forget.write_text(began)

    die_before_the_first_training(words)
    refused()  # while it is unfinished
    folder = start(words)
    refused()  # and when it is finished
    (tmp_path / "retain.jsonl").unlink()
    refused()
    assert start(words) == folder
    forget.unlink()  # as whoever honours a request may have to
    assert start(words) == folder


def test_a_request_that_was_removed_while_a_run_was_unfinished_is_told(arguments, monkeypatch):
    words, measure, calls = [*arguments, *QUICK], stream_module.measure, []

    def dies_after_the_first_request(bench, count):
        calls.append(bench.unlearner.store.path)
        if len(calls) == 3:
            raise Killed
        return measure(bench, count)

    with monkeypatch.context() as patch:
        patch.setattr(stream_module, "measure", dies_after_the_first_request)
        with pytest.raises(Killed):
            start(words)
    store = Store.open(calls[0])
    store.remove("quillan")
    with pytest.raises(InputError, match="'quillan' was removed since"):
        start(words)
    assert [record.id for record in store.records()] == ["mirelle"]


def test_bad_input_writes_nothing_and_exits_with_two(arguments, tmp_path, capsys):
    (tmp_path / "forget.jsonl").write_text('{"prompt": "Who?"}\n')
    with pytest.raises(SystemExit) as stop:
        main(["run", *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "forget.jsonl:1" in error
    assert "field 'answer': missing" in error
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("words", [("--trainer.devices", "0"), ("--trainer.accelerator", "tpu")])
def test_options_that_the_trainer_refuses_bind_no_folder(words, arguments, tmp_path):
    with pytest.raises(InputError, match="field 'trainer'"):
        start([*arguments, *words])
    assert not (tmp_path / "runs").exists()


def test_an_adapter_that_the_gate_cannot_load_is_not_committed(arguments, monkeypatch):
    real = unlearner_module.train_adapter

    def misnamed(task):
        trained = real(task)
        pairs, scales = trained.factors.pairs, trained.factors.scales
        last = list(pairs)[-1]
        parts = (
            {("elsewhere" if path == last else path): part[path] for path in pairs}
            for part in (pairs, scales)
        )
        return replace(trained, factors=LoraFactors(*parts))

    monkeypatch.setattr(unlearner_module, "train_adapter", misnamed)
    with pytest.raises(InputError, match="a module that the base model lacks: elsewhere"):
        start(arguments)
    store = Store.open(Path(arguments[arguments.index("--output") + 1]) / "tiny/store")
    assert {record.status for record in store.records()} == {PROTECTED}
    assert verify_store(store.path) == []


def test_targets_that_match_nothing_are_refused_before_anything_is_written(arguments, tmp_path):
    with pytest.raises(InputError, match="'w_nope' matches no linear layer"):
        start([*arguments, "--adapter.targets", "[q_proj, w_nope]"])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("file", ["forget.jsonl", "retain.jsonl"])
def test_a_prompt_beyond_the_context_is_named_with_file_and_line(arguments, file, tmp_path, capsys):
    long = {"prompt": "Where did Quillan go? " * 200, "answer": "In Arlo"}
    write_lines(tmp_path / file, [*rows("Quillan Osterhaus"), long])
    with pytest.raises(SystemExit) as stop:
        main(["run", *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{file}:7: field 'prompt'" in error
    assert "the model's context is 256" in error
    assert not (tmp_path / "runs").exists()


def test_a_finished_run_is_drawn_again_as_it_was(copied):
    folder = copied
    page, table = (folder / "report.html").read_text(), (folder / "metrics.csv").read_text()
    (folder / "report.html").unlink()
    main(["report", str(folder)])
    assert (folder / "report.html").read_text() == page
    assert (folder / "metrics.csv").read_text() == table
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["digests"]["requests"]) == set(metrics["store_bytes"]) == {"quillan", "mirelle"}


def test_a_run_of_an_earlier_version_is_drawn_and_one_without_its_stages_is_told(copied):
    folder = copied
    metrics = json.loads((folder / "metrics.json").read_text())
    for later in ("adapters", "calibration", "store_bytes", "plane", "digests"):
        del metrics[later]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    main(["report", str(folder)])
    (folder / "stages/detectors.json").unlink()
    with pytest.raises(InputError, match="there is no result of stage detectors"):
        render_again(RunFolder(folder))
