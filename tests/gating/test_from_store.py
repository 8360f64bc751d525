"""From the store to the gated model and out to plain PEFT folders."""

import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.gating import loading as loading_module
from o3_lightning.gating.config import GateConfig
from o3_lightning.gating.model import GatedModel
from o3_lightning.gating.watching import StoreWatcher
from o3_lightning.store import Store


@dataclass
class FakeEncoder:
    id: str = "words"
    digest: str = "words-digest"


@dataclass
class FakeDetector:
    words: dict

    def save(self, folder):
        (Path(folder) / "detector.json").write_text(json.dumps(self.words))
        (Path(folder) / "detector.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")

    @classmethod
    def load(cls, folder):
        return cls(json.loads((Path(folder) / "detector.json").read_text()))


@pytest.fixture
def detectors_of_words(monkeypatch, gate_kit):
    def build(encoder, detectors):
        assert encoder.digest == "words-digest"
        return gate_kit.detectors({name: detector.words for name, detector in detectors.items()}, [])

    monkeypatch.setattr(loading_module, "Detector", FakeDetector)
    monkeypatch.setattr(loading_module, "MultiDetector", build)


def request_of(name):
    return UnlearningRequest(name, (QuestionAnswer(f"where is the {name}", "in the hill"),))


def save_copy(folder):
    return lambda target: shutil.copytree(folder, target, dirs_exist_ok=True)


@pytest.fixture
def stocked(tmp_path, gate_kit, adapter_folders, detectors_of_words):
    """A function that makes a store with some requests unlearned and others protected."""

    def build(name, unlearned, protected=()):
        base = gate_kit.base()
        store = Store.create(tmp_path / name, base.id, base.digest, "words", "words-digest")
        for id in (*unlearned, *protected):
            store.register(request_of(id), {})
            store.protect(id, FakeDetector(gate_kit.table[id]).save)
            if id in unlearned:
                store.unlearn(id, save_copy(adapter_folders("llama")[id]), {})
        return store

    return build


def open_gate(store, gate_kit, **settings):
    settings = {"refusal": "sorry I cannot say that", "max_new_tokens": 6, **settings}
    return GatedModel.from_store(store.path, gate_kit.base(), FakeEncoder(), GateConfig(**settings))


def logits_of(gated, prompts):
    ids, mask = gated.tokens.pad([gated.tokens.encode(prompt) for prompt in prompts])
    return gated(ids, mask).logits


def test_last_runs_the_newest_adapter_alone_and_without_detection_on_every_row(stocked, gate_kit):
    store = stocked("s", ["roses", "irises"])
    always = open_gate(store, gate_kit, combine="last", detect=False)
    both = logits_of(always, gate_kit.prompts)
    assert bool((always.weights(gate_kit.prompts) == 1).all())
    alone = torch.tensor([[0.0, 1.0]]).expand(len(gate_kit.prompts), -1)
    routed = open_gate(store, gate_kit)
    ids, mask = routed.tokens.pad([routed.tokens.encode(prompt) for prompt in gate_kit.prompts])
    torch.testing.assert_close(both, routed(ids, mask, weights=alone).logits)


def test_adapter_on_disk_loads_in_plain_peft_and_gives_the_same_logits(stocked, gate_kit):
    import copy

    gated = open_gate(stocked("s", ["roses", "irises"]), gate_kit)
    ids, mask = gated.tokens.pad([gated.tokens.encode(prompt) for prompt in gate_kit.prompts])
    folder = gated.store.path / "requests" / "irises" / "adapter"
    plain = PeftModel.from_pretrained(copy.deepcopy(gate_kit.model("llama")), folder).eval()
    weights = torch.tensor([[0.0, 1.0]]).repeat(len(ids), 1)
    with torch.no_grad():
        expected = plain(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(gated(ids, mask, weights=weights).logits, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("rule", ["routed", "max", "top_k", "sum"])
def test_revoked_request_is_as_if_it_had_never_been(stocked, gate_kit, rule):
    whole, without = stocked("whole", ["roses", "irises", "lilies"]), stocked("without", ["roses", "lilies"])
    before = logits_of(open_gate(whole, gate_kit, combine=rule), gate_kit.prompts)
    whole.revoke("irises")
    revoked = open_gate(whole, gate_kit, combine=rule)
    assert revoked.ids == ("roses", "lilies")
    expected = logits_of(open_gate(without, gate_kit, combine=rule), gate_kit.prompts)
    torch.testing.assert_close(logits_of(revoked, gate_kit.prompts), expected, atol=1e-5, rtol=0)
    whole.restore("irises")
    assert torch.equal(logits_of(open_gate(whole, gate_kit, combine=rule), gate_kit.prompts), before)
    assert not torch.allclose(before, expected)


def test_request_is_refused_from_protection_until_it_is_unlearned(stocked, gate_kit, adapter_folders):
    store = stocked("s", ["roses"])
    plain = open_gate(store, gate_kit).answer(["a lily"])
    store.register(request_of("lilies"), {})
    assert open_gate(store, gate_kit).answer(["a lily"]) == plain
    store.protect("lilies", FakeDetector(gate_kit.table["lilies"]).save)
    assert open_gate(store, gate_kit).answer(["a lily"]) == ["sorry I cannot say that"]
    store.unlearn("lilies", save_copy(adapter_folders("llama")["lilies"]), {})
    assert open_gate(store, gate_kit).answer(["a lily"]) not in (plain, ["sorry I cannot say that"])


def test_empty_store_is_the_base_model(stocked, gate_kit):
    gated = open_gate(stocked("s", []), gate_kit)
    with gated.disabled():
        expected = logits_of(gated, gate_kit.prompts)
    assert torch.equal(logits_of(gated, gate_kit.prompts), expected)
    assert gated.weights(["rose"]).shape == (1, 0)
    (explained,) = gated.explain(["rose"])
    assert explained == {
        "weights": {},
        "suspect": {},
        "strengths": {},
        "refused": False,
        "failed": False,
        "detectors": [],
        "unchecked": [],
    }


def test_other_base_or_encoder_is_refused(stocked, gate_kit):
    store = stocked("s", ["roses"])
    with pytest.raises(StoreError, match="made for base llama with digest"):
        GatedModel.from_store(store.path, replace(gate_kit.base(), digest="other"), FakeEncoder())
    with pytest.raises(
        StoreError, match="made for encoder words with digest words-digest, opened with digest x"
    ):
        GatedModel.from_store(store.path, gate_kit.base(), FakeEncoder(digest="x"))


def test_damaged_adapter_is_refused_by_name(stocked, gate_kit):
    store = stocked("s", ["roses"])
    path = store.path / "requests/roses/adapter/adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(StoreError, match=r"adapter_model.safetensors: changed since it was written"):
        open_gate(store, gate_kit)


def test_adapter_of_another_model_is_refused_by_layer(stocked, gate_kit, adapter_folders):
    store = stocked("s", [], ["roses"])
    store.unlearn("roses", save_copy(adapter_folders("phi")["roses"]), {})
    with pytest.raises(InputError, match=r"model\.layers\.0\.\w+"):
        open_gate(store, gate_kit)


def test_export_is_plain_peft_and_a_gate_folder(stocked, gate_kit, tmp_path):
    import copy

    store = stocked("s", ["roses", "irises"], ["lilies"])
    store.revoke("irises")
    gated = open_gate(store, gate_kit, combine="max")
    root = gated.export(tmp_path / "deep" / "export")
    assert sorted(path.name for path in (root / "adapters").iterdir()) == ["roses"]
    PeftModel.from_pretrained(copy.deepcopy(gate_kit.model("llama")), root / "adapters" / "roses")
    described = json.loads((root / "gate" / "gate.json").read_text())
    assert described["gate"]["combine"] == "max"
    assert described["requests"] == [
        {"id": "roses", "status": "unlearned"},
        {"id": "lilies", "status": "protected"},
    ]
    assert FakeDetector.load(root / "gate" / "lilies").words == gate_kit.table["lilies"]
    with pytest.raises(InputError, match="exists already"):
        gated.export(root)
    assert not [path for path in root.parent.iterdir() if path != root]


def test_a_request_that_was_revoked_since_the_model_was_loaded_is_not_exported(stocked, gate_kit, tmp_path):
    store = stocked("s", ["roses", "irises"], ["lilies"])
    gated = open_gate(store, gate_kit)
    store.revoke("irises")
    store.remove("lilies")
    root = gated.export(tmp_path / "export")
    assert json.loads((root / "gate/gate.json").read_text())["requests"] == [
        {"id": "roses", "status": "unlearned"}
    ]
    assert sorted(path.name for path in (root / "gate").iterdir()) == ["gate.json", "roses"]


def test_only_a_model_from_a_store_is_exported(build_gated, tmp_path):
    with pytest.raises(InputError, match="loaded from a store"):
        build_gated().export(tmp_path / "x")


def test_detectors_and_adapters_of_different_requests_are_refused(build_gated, gate_kit):
    gated = build_gated()
    with pytest.raises(InputError, match="detectors of"):
        GatedModel(gated.base, gated.detectors, {"roses": None})


def test_refresh_follows_every_change_and_reads_only_what_is_new(
    stocked, gate_kit, adapter_folders, monkeypatch
):
    store = stocked("s", ["roses"])
    gated = open_gate(store, gate_kit)
    plain, read = gated.answer(["a lily"]), []
    load = FakeDetector.load
    monkeypatch.setattr(FakeDetector, "load", lambda folder: read.append(folder.name) or load(folder))
    assert not gated.refresh()
    store.register(request_of("lilies"), {})
    store.protect("lilies", FakeDetector(gate_kit.table["lilies"]).save)
    assert gated.answer(["a lily"]) == plain
    assert gated.refresh()
    assert gated.answer(["a lily"]) == ["sorry I cannot say that"]
    store.unlearn("lilies", save_copy(adapter_folders("llama")["lilies"]), {})
    assert gated.refresh()
    assert gated.answer(["a lily"]) not in (plain, ["sorry I cannot say that"])
    store.revoke("lilies")
    assert gated.refresh()
    assert gated.ids == ("roses",)
    assert gated.answer(["a lily"]) == plain
    store.restore("lilies")
    store.remove("roses")
    assert gated.refresh()
    assert torch.equal(
        logits_of(gated, gate_kit.prompts), logits_of(open_gate(store, gate_kit), gate_kit.prompts)
    )
    assert read[:3] == ["lilies"] * 3  # protected, unlearned, restored; then the model opened anew


def test_damage_leaves_a_refreshed_model_as_it_was(stocked, gate_kit):
    store = stocked("s", ["roses"])
    gated = open_gate(store, gate_kit)
    store.register(request_of("lilies"), {})
    store.protect("lilies", FakeDetector(gate_kit.table["lilies"]).save)
    (store.path / "requests/lilies/detector.json").write_text("{}")
    with StoreWatcher(gated, seconds=60) as watcher:
        watcher.look()
    assert "lilies/detector.json: changed" in watcher.problem
    assert gated.ids == ("roses",)


def test_a_watcher_outlives_any_error(stocked, gate_kit, monkeypatch):
    gated = open_gate(stocked("s", ["roses"]), gate_kit)
    with StoreWatcher(gated, seconds=0.01) as watcher, monkeypatch.context() as patch:
        patch.setattr(gated, "refresh", lambda: 1 / 0)
        deadline = time.monotonic() + 30
        while not watcher.problem.startswith("ZeroDivisionError") and time.monotonic() < deadline:
            time.sleep(0.01)
        patch.undo()
        while watcher.problem and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.monotonic() < deadline


def test_watched_model_changes_between_generations_and_threads_keep_their_disabled_gate(stocked, gate_kit):
    store = stocked("s", ["roses"])
    gated = open_gate(store, gate_kit)
    with gated.disabled():
        plain = gated.answer(["a lily", "where is the rose"])
        store.register(request_of("lilies"), {})
        store.protect("lilies", FakeDetector(gate_kit.table["lilies"]).save)
        with StoreWatcher(gated, seconds=0.01):
            deadline = time.monotonic() + 30
            while gated.ids != ("roses", "lilies") and time.monotonic() < deadline:
                time.sleep(0.01)
        assert gated.answer(["a lily", "where is the rose"]) == plain
    assert gated.answer(["a lily"]) == ["sorry I cannot say that"]
