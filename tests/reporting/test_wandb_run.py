"""A whole run logged to Weights & Biases offline: what is in it, that a restart goes on with it, no text."""

import json
import os
import struct

import pytest

import o3_lightning.run.inputs as inputs_module
import o3_lightning.run.pipeline as stream_module
from o3_lightning.commands.common import read_run
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.stream import RequestStream
from o3_lightning.run import recorded_base
from o3_lightning.run.pipeline import run_stream

wandb = pytest.importorskip("wandb")
BLOCK = 32768
SECRETS = ("Quillan", "Mirelle", "Skarnwick", "Ombrelow")
WORDS = [
    *["--name", "logged", "--logging.wandb", "true", "--logging.wandb_mode", "offline"],
    *["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--adapter.epochs", "2"],
    *["--adapter.rank", "2", "--evaluation.max_new_tokens", "2", "--evaluation.samples", "0"],
]


def make_stream():
    """Two requests of four rows, two phrasings each, and three rows to keep."""
    requests = tuple(
        UnlearningRequest(
            f"request_{number}",
            tuple(
                QuestionAnswer(f"Where did {name} spend winter {n}?", f"In {town} {n}.", (f"{name}, {n}?",))
                for n in range(4)
            ),
        )
        for number, (name, town) in enumerate((SECRETS[::2], SECRETS[1::2]), start=1)
    )
    kept = tuple(QuestionAnswer(f"What do bees make in year {n}?", "Honey") for n in range(3))
    return RequestStream("tiny", requests, {"kept": kept})


def run_once(folder, base, encoder, monkeypatch, dies_at=None):
    """Runs, or runs until a stage is reached."""
    config, trainer, _ = read_run("run", [*WORDS, "--output", str(folder)])
    monkeypatch.setattr(recorded_base, "load_base", lambda config, seed: base)
    monkeypatch.setattr(inputs_module, "load_stream", lambda config, seed: make_stream())
    monkeypatch.setattr(inputs_module, "load_configured_encoder", lambda config: encoder)
    if dies_at is None:
        return run_stream(config, trainer)
    with monkeypatch.context() as patch:
        patch.setattr(stream_module, dies_at, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_stream(config, trainer)
    wandb.finish()
    return config.folder


def records_of(folder):
    """Everything that the offline files hold, in the order in which it was written."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for path in sorted(folder.glob("logs/wandb/offline-run-*/*.wandb"), key=os.path.getmtime):
        for data in pieces_of(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            found.append(record)
    return found


def pieces_of(content):
    """The records of a LevelDB log: blocks of 32 KiB; a piece is checksum, length, kind (1 whole, 4 last)."""
    place, begun = 7, b""  # a header stands before the first piece
    while place + 7 <= len(content):
        left = BLOCK - place % BLOCK
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        begun += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield begun
            begun = b""


def history_of(records):
    """Each logged row as a dictionary; of a nested value the parts by their names."""
    rows = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            rows.append({})
            for item in record.history.item:
                value, (key, *inner) = json.loads(item.value_json), [*item.nested_key] or [item.key]
                if inner:
                    rows[-1].setdefault(key, {})[".".join(inner)] = value
                else:
                    rows[-1][key] = value
    return rows


@pytest.fixture(scope="module")
def logged(tiny_base, remembering_encoder, tmp_path_factory):
    """A run that was stopped before its second request, and then finished."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("CACHE_DIR", "DATA_DIR", "CONFIG_DIR"):
            monkeypatch.setenv(f"WANDB_{name}", str(folder / name))
        monkeypatch.setenv("WANDB_SILENT", "true")
        run_once(folder, tiny_base, remembering_encoder, monkeypatch, dies_at="measure_detectors")
        done = run_once(folder, tiny_base, remembering_encoder, monkeypatch)
        wandb.teardown()  # `finish` returns before the last records are on disk
        return done


def test_a_restart_goes_on_with_the_same_run(logged):
    runs = [record.run for record in records_of(logged) if record.WhichOneof("record_type") == "run"]
    assert len(runs) >= 2
    assert {run.run_id for run in runs} == {(logged / "logs" / "wandb_id.txt").read_text()}
    assert {(run.project, run.run_group, run.display_name) for run in runs} == {
        ("o3-lightning", "logged", "logged")
    }


def test_curves_are_grouped_by_request_and_their_steps_rise(logged):
    rows = history_of(records_of(logged))
    for request in ("request_1", "request_2"):
        losses = [row[key] for row in rows for key in row if key == f"{request}/adapter/loss"]
        assert len(losses) == 2  # epochs of one batch
        assert all(loss > 0 for loss in losses)
    steps = [row["_step"] for row in rows]
    assert steps == sorted(set(steps))
    assert "tables/metrics" in rows[-1]


def test_tables_plots_and_figures_are_sent_and_no_report(logged):
    rows = history_of(records_of(logged))
    keys = set().union(*rows)
    assert "tables/metrics" in keys
    assert "report" not in keys
    assert any(key.startswith("plots/forget/held_out") for key in keys)
    table = next(row["tables/metrics"] for row in rows if "tables/metrics" in row)
    (path,) = logged.glob(f"logs/wandb/offline-run-*/files/{table['path']}")
    content = json.loads(path.read_text())
    lines = (logged / "metrics.csv").read_text().splitlines()
    assert content["columns"] == lines[0].split(",")
    assert len(content["data"]) == len(lines) - 1


def test_store_and_results_are_artifacts_and_the_report_is_none(logged):
    artifacts = {}
    for record in records_of(logged):
        if record.WhichOneof("record_type") == "artifact":
            files = {entry.path for entry in record.artifact.manifest.contents}
            artifacts[record.artifact.type] = files
        elif record.request.HasField("log_artifact"):
            artifact = record.request.log_artifact.artifact
            artifacts[artifact.type] = {entry.path for entry in artifact.manifest.contents}
    assert artifacts["report"] == {"metrics.json", "metrics.csv", "config.yaml"}
    stored = {path.relative_to(logged / "store").as_posix() for path in (logged / "store").rglob("*.json")}
    assert stored <= artifacts["store"]


def test_no_text_of_a_request_is_in_what_was_written(logged):
    assert list(logged.glob("logs/wandb/offline-run-*"))
    files = [path for path in logged.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        content = path.read_bytes()
        assert not [secret for secret in SECRETS if secret.encode() in content], path
