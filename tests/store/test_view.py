"""A store that is only read stays as it is, with whatever a killed write left in it."""

import pytest

from o3_lightning.common.errors import StoreError
from o3_lightning.store import Store, StoreView, verify_store


def content(path):
    return {p: p.is_file() and p.read_bytes() for p in path.rglob("*") if p.name != ".lock"}


def test_a_view_reads_what_the_store_holds(store):
    view = StoreView.open(store.path, store.base_digest, store.encoder_digest)
    assert view.records() == store.records()
    assert view.record("done") == store.record("done")
    assert view.adapter_folder("done") == store.adapter_folder("done")
    assert not hasattr(view, "revoke")


def test_a_view_leaves_a_write_that_never_became_final(store):
    journal = store.path / "journal.jsonl"
    lines = journal.read_bytes().count(b"\n")
    pending = store.path / f".pending-{lines}"
    pending.mkdir()
    (pending / "request.json").write_text("{}")
    with open(journal, "ab") as stream:
        stream.write(b'{"digest": "12')
    (store.path / ".store.json.abc.tmp").touch()
    before = content(store.path)
    view = StoreView.open(store.path)
    assert [record.id for record in view.records()] == ["done", "covered", "noted", "back"]
    assert view.detector_folder("covered").is_dir()
    assert content(store.path) == before
    Store.open(store.path)
    assert not pending.exists()


def test_a_view_refuses_a_final_write_that_was_not_finished_and_tells_who_finishes_it(store):
    journal = store.path / "journal.jsonl"
    lines = journal.read_bytes().count(b"\n")
    (store.path / f".pending-{lines - 1}").mkdir()
    before = content(store.path)
    with pytest.raises(StoreError, match=r"a killed write has to be finished .*requests verify --store"):
        StoreView.open(store.path)
    assert content(store.path) == before
    assert store.verify() == []
    assert len(StoreView.open(store.path).records()) == len(store.records())


def test_a_folder_without_a_store_is_left_without_a_lock(tmp_path):
    with pytest.raises(StoreError, match=r"journal\.jsonl: missing"):
        verify_store(tmp_path)
    assert not any(tmp_path.iterdir())
