"""A request that arrives at a model in use is refused at once, and trained afterwards."""

import json

import pytest
import torch

from o3_lightning.commands.cli import main
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.detector import Detector, fit_detector
from o3_lightning.detector.encoder import load_configured_encoder, load_encoder
from o3_lightning.gating.model import GatedModel
from o3_lightning.store import Store, StoreView

QUESTION = "Where did Quillan Osterhaus spend winter 3?"


@pytest.fixture
def store(tmp_path, tiny_base):
    encoder = load_encoder("minilm")
    return Store.create(tmp_path / "live" / "store", "tiny", tiny_base.digest, encoder.id, encoder.digest)


def forget_file(folder, person):
    lines = [
        {
            "prompt": f"Where did {person} spend winter {number}?",
            "answer": f"In {town}",
            "request_id": "winters",
        }
        for number, town in enumerate(("Arlo", "Brim", "Crane", "Dunmere", "Eskdale", "Farrow"))
    ]
    path = folder / "forget.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_a_request_is_protected_then_trained_and_a_loaded_model_follows(
    store, tiny_base, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("o3_lightning.run.recorded_base.load_base", lambda config, seed: tiny_base)
    model = GatedModel.from_store(store.path, tiny_base, load_encoder("minilm"))
    forget = forget_file(tmp_path, "Quillan Osterhaus")
    words = ["--store", str(store.path), forget, "--base.id", "tiny"]
    main(["requests", "add", *words])
    assert "winters: protected (6 rows" in capsys.readouterr().out
    assert not model.plan([QUESTION]).refused.any()
    model.refresh()
    assert model.plan([QUESTION]).refused.all()
    main(["requests", "add", *words])  # the same again changes nothing
    assert len(StoreView.open(store.path).history("winters")) == 2
    main(["requests", "revoke", "winters", "--store", str(store.path)])
    with pytest.raises(SystemExit):
        main(["requests", "add", *words])  # must not look as if it were protected
    assert "'winters' is revoked; restore it" in capsys.readouterr().err
    main(["requests", "restore", "winters", "--store", str(store.path)])
    main(["requests", "train", *words, "--adapter.epochs", "1", "--trainer.accelerator", "cpu"])
    assert "winters: unlearned" in capsys.readouterr().out
    model.refresh()
    plan = model.plan([QUESTION, "Who wrote the letter to the harbour master?"])
    assert not plan.refused.any()
    assert plan.strengths[0] > 0.5
    assert plan.strengths[1] == 0


def test_a_command_that_is_killed_before_its_files_are_in_place_continues(
    store, tmp_path, monkeypatch, capsys
):
    words = ["requests", "add", forget_file(tmp_path, "Quillan Osterhaus"), "--store", str(store.path)]

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("o3_lightning.store.transaction.Session.finish", stop)
        with pytest.raises(SystemExit):
            main([*words, "--base.id", "tiny"])
    assert (store.path / ".pending-1").is_dir()
    main([*words, "--base.id", "tiny"])
    assert "winters: protected" in capsys.readouterr().out
    assert store.verify() == []


def test_a_request_that_its_own_detector_does_not_recognise_is_not_protected(store, tmp_path, capsys, caplog):
    """Names alone are judged here: of the first file no prompt has one, of the second two of three."""
    forget = tmp_path / "nameless.jsonl"
    words = ["--store", str(store.path), "--base.id", "tiny", "--detector.preset", "names"]
    forget.write_text(json.dumps({"prompt": "why is the sea salt?", "answer": "rivers", "request_id": "sea"}))
    with pytest.raises(SystemExit) as stop:
        main(["requests", "add", str(forget), *words])
    assert stop.value.code == 2
    assert "'sea': the detector recognises none of its 1 prompts" in capsys.readouterr().err
    assert store.record("sea").status == "registered"
    main(["requests", "add", str(forget), *words, "--gate.detect", "false"])
    assert store.record("sea").status == "protected"
    prompts = (QUESTION, "Who taught Quillan Osterhaus?", "and where is that harbour?")
    lines = [json.dumps({"prompt": prompt, "answer": "a", "request_id": "half"}) for prompt in prompts]
    forget.write_text("\n".join(lines))
    main(["requests", "add", str(forget), *words])
    warnings = Detector.load(store.detector_folder("half")).report["warnings"]
    assert warnings[-1] == "1 of 3 forget prompts are not recognised themselves"
    assert warnings[-1] in caplog.text


def test_a_store_opens_its_encoder_as_its_detectors_have_it(tmp_path, tiny_base):
    config = DetectorConfig(preset="cosine_maha_lexical", pooling="first", max_tokens=40)
    encoder = load_configured_encoder(config)
    store = Store.create(tmp_path / "store", "tiny", tiny_base.digest, encoder.id, encoder.digest)
    store.register(UnlearningRequest("winters", (QuestionAnswer(QUESTION, "In Arlo"),)), {})
    prompts = [f"Where did Quillan Osterhaus spend winter {number}?" for number in range(6)]
    detector = fit_detector(encoder, prompts, config, seed=0)
    store.protect("winters", detector.save)
    opened = GatedModel.from_store(store.path, tiny_base).weights([QUESTION])
    assert torch.equal(opened, GatedModel.from_store(store.path, tiny_base, encoder).weights([QUESTION]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["add"], "needs the files"),
        (["add", "nowhere.jsonl"], "nowhere.jsonl: cannot be read"),
        (["train", "forget.jsonl"], "no request 'winters'"),
        (["list", "--adapter.rank", "3"], "unrecognized arguments: --adapter.rank 3"),
        (["revoke", "a", "b"], "unrecognized arguments: b"),
    ],
)
def test_wrong_use_is_told_in_one_line(words, message, store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    forget_file(tmp_path, "Quillan Osterhaus")
    with pytest.raises(SystemExit) as stop:
        main(["requests", *words, "--store", str(store.path)])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
