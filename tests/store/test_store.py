"""The life of a request in the store, and what the store refuses."""

import errno
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.store import Store
from o3_lightning.store import transaction as transaction_module


def statuses(store):
    return {record.id: record.status for record in store.records()}


def contents(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_every_status_is_reached_in_order_of_registration(store):
    expected = {"done": "unlearned", "covered": "protected", "noted": "registered", "back": "revoked"}
    assert statuses(store) == expected
    assert list(statuses(store)) == list(expected)
    assert statuses(Store.open(store.path, "b" * 64, "e" * 64)) == expected
    assert store.verify() == []


def test_layout_is_the_documented_one(store):
    names = set(contents(store.path)) - {".lock"}
    expected = {"store.json", "journal.jsonl"}
    for name in ("done", "back"):
        expected |= {
            f"requests/{name}/adapter/adapter_{part}" for part in ("model.safetensors", "config.json")
        }
    for name in ("done", "covered", "back"):
        expected |= {f"requests/{name}/detector.{kind}" for kind in ("safetensors", "json")}
    expected |= {f"requests/{name}/request.json" for name in ("done", "covered", "noted", "back")}
    assert names == expected
    described = json.loads((store.path / "store.json").read_text())
    assert (described["base_id"], described["encoder_digest"]) == ("base", "e" * 64)


def test_record_holds_size_digest_configuration_and_metrics(store, kit):
    record = store.record("done")
    assert (record.rows, record.digest) == (3, kit.request("done").digest)
    assert (dict(record.configuration), dict(record.metrics)) == ({"rank": 8}, {"loss": 0.5})


def test_registering_the_same_forget_set_again_changes_nothing(store, kit):
    before = contents(store.path)
    assert store.register(kit.request("done"), {"rank": 8}).status == "unlearned"
    assert contents(store.path) == before


def test_registering_another_forget_set_under_a_taken_id_is_refused(store, kit):
    with pytest.raises(InputError, match=r"'done' is registered with another forget set"):
        store.register(kit.request("done", rows=4), {})
    assert store.verify() == []


def test_ids_that_differ_only_in_case_are_refused(store, kit):
    with pytest.raises(InputError, match="only in case"):
        store.register(kit.request("DONE"), {})


@pytest.mark.parametrize("name", ["done", "covered", "noted"])
def test_restore_gives_back_the_status_before_revoke(store, name):
    before = store.record(name)
    assert store.revoke(name).status == "revoked"
    assert store.revoke(name).status == "revoked"
    assert store.restore(name) == before
    assert store.restore(name) == before
    assert store.verify() == []


def test_removed_request_leaves_no_file_and_its_id_is_free(store, kit):
    store.remove("done")
    assert "done" not in statuses(store)
    assert not (store.path / "requests" / "done").exists()
    with pytest.raises(InputError, match="no request 'done'"):
        store.record("done")
    store.register(kit.request("done", rows=5), {})
    assert list(statuses(store))[-1] == "done"
    assert store.verify() == []


def test_protecting_again_replaces_the_detector_and_keeps_the_adapter(store):
    store.protect("done", lambda folder: (folder / "detector.json").write_text('{"preset": "paper"}'))
    assert store.record("done").status == "unlearned"
    assert "paper" in (store.detector_folder("done") / "detector.json").read_text()
    assert not (store.detector_folder("done") / "detector.safetensors").exists()
    assert (store.adapter_folder("done") / "adapter_config.json").exists()
    assert store.verify() == []


def test_steps_out_of_order_are_refused(store, kit):
    with pytest.raises(InputError, match="has no detector yet"):
        store.unlearn("noted", kit.adapter, {})
    with pytest.raises(InputError, match="is revoked; restore it first"):
        store.protect("back", kit.detector)
    with pytest.raises(InputError, match="has no detector yet"):
        store.detector_folder("noted")
    with pytest.raises(InputError, match="has no adapter yet"):
        store.adapter_folder("covered")
    with pytest.raises(InputError, match=r"no request 'ghost' in .*; there are: done, covered"):
        store.revoke("ghost")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_metric_that_json_cannot_hold_is_refused(store, kit, value):
    before = contents(store.path)
    with pytest.raises(InputError, match="not JSON"):
        store.unlearn("covered", kit.adapter, {"loss": value})
    assert contents(store.path) == before


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("model.pt", "only .json"),
        ("run.py", "only .json"),
        ("request.json", "expected a detector or adapter"),
    ],
)
def test_save_may_write_only_tensors_and_json(store, file, message):
    before = contents(store.path)
    with pytest.raises(StoreError, match=message):
        store.protect("noted", lambda folder: (folder / file).write_text("x"))
    assert contents(store.path) == before


def test_save_that_writes_a_link_or_nothing_is_refused(store):
    with pytest.raises(StoreError, match="only plain files"):
        store.protect("noted", lambda folder: (folder / "detector.json").symlink_to("/etc/hostname"))
    with pytest.raises(StoreError, match="expected a detector or adapter"):
        store.protect("noted", lambda folder: None)
    assert store.verify() == []


def test_save_that_raises_leaves_the_store_as_it_was(store):
    before = contents(store.path)

    def save(folder):
        (folder / "detector.json").write_text("{}")
        raise RuntimeError("encoder gone")

    with pytest.raises(RuntimeError, match="encoder gone"):
        store.protect("noted", save)
    assert contents(store.path) == before


def test_no_text_of_the_forget_set_is_on_disk(store, kit):
    written = b"\n".join(contents(store.path).values()).lower()
    for name in ("done", "covered", "noted", "back"):
        request = kit.request(name)
        for text in (*request.prompts, *request.answers):
            assert text.lower().encode() not in written
            assert json.dumps(text)[1:-1].lower().encode() not in written


def test_other_base_or_encoder_is_refused_with_both_digests(store):
    with pytest.raises(StoreError, match=f"base base with digest {'b' * 64}, opened with digest {'c' * 64}"):
        Store.open(store.path, "c" * 64)
    with pytest.raises(StoreError, match=f"encoder encoder with digest {'e' * 64}, opened with digest ff"):
        Store.open(store.path, "b" * 64, "ff")


def test_other_version_is_refused_and_missing_store_is_told(store, tmp_path):
    path = store.path / "store.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(StoreError, match="format version 2; this program reads version 1"):
        Store.open(store.path)
    with pytest.raises(StoreError, match="no store here"):
        Store.open(tmp_path / "nowhere")


def test_create_refuses_a_folder_in_use_and_finishes_a_killed_create(tmp_path, kit):
    kit.fill(tmp_path / "used")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    for folder, message in (("used", "a store already"), ("other", "found thesis.txt")):
        with pytest.raises(StoreError, match=message):
            Store.create(tmp_path / folder, *kit.identity)
    (tmp_path / "used" / "store.json").unlink()
    with pytest.raises(StoreError, match="expected an empty folder"):
        Store.create(tmp_path / "used", *kit.identity)


def test_create_with_exist_ok_makes_the_store_once(tmp_path, kit):
    first = Store.create(tmp_path / "s", *kit.identity, exist_ok=True)
    first.register(kit.request("a"), {})
    again = Store.create(tmp_path / "s", *kit.identity, exist_ok=True)
    assert statuses(again) == {"a": "registered"}


@pytest.mark.parametrize("target", ["mkdir", "write", "replace", "fsync"])
def test_full_disk_is_one_clear_line_and_loses_nothing(store, kit, monkeypatch, target):
    before = statuses(store)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(store.path))

    monkeypatch.setattr(os, target, full)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        store.protect("noted", kit.detector)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    after = statuses(Store.open(store.path))
    assert store.verify() == []
    assert after in (before, {**before, "noted": "protected"})


def test_disk_that_fills_in_the_middle_of_a_journal_line(store, kit, monkeypatch):
    real, before = os.write, contents(store.path)

    def half(handle, data):
        if bytes(data).startswith(b'{"digest"'):
            real(handle, bytes(data)[:20])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle, data)

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(StoreError, match="No space left on device"):
        store.protect("noted", kit.detector)
    monkeypatch.undo()
    assert contents(store.path) == before


def test_no_permission_to_write_leaves_reading(store, kit, monkeypatch):
    def denied(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(store.path))

    monkeypatch.setattr(transaction_module.FileLock, "acquire", denied)
    assert statuses(store)["done"] == "unlearned"
    assert store.verify() == []
    with pytest.raises(StoreError, match="may not be written: Permission denied"):
        store.revoke("done")
    with pytest.raises(StoreError, match="may not be written: Permission denied"):
        Store.create(store.path / "requests" / "x", *kit.identity)


def test_second_process_waits_or_fails_cleanly(store):
    code = (
        "import sys, time; from filelock import FileLock\n"
        f"with FileLock({str(store.path / '.lock')!r}):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline().strip() == b"held"
        store.lock_seconds = 0.1
        with pytest.raises(StoreError, match=r"another process is writing; waited 0.1 s"):
            store.revoke("done")
        holder.stdin.close()
        store.lock_seconds = 20.0
        assert store.revoke("done").status == "revoked"
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_gated_requests_are_verified_once_and_change_their_digest_with_their_files(store, kit):
    found = store.gated()
    assert [(request.id, request.adapter is not None) for request in found] == [
        ("done", True),
        ("covered", False),
    ]
    known, head = {request.digest for request in found}, store.head()
    (store.path / "requests/done/detector.json").write_text("x")
    assert store.gated(known) == found
    with pytest.raises(StoreError, match=r"detector\.json: changed"):
        store.gated()
    store.unlearn("covered", kit.adapter, {})
    store.restore("back")
    later = store.gated(known)
    assert [request.id for request in later] == ["done", "covered", "back"]
    assert [request.digest in known for request in later] == [True, False, False]
    assert store.head() != head


@pytest.mark.parametrize("place", ["requests/done", "requests/done/adapter", "requests/done/detector.json"])
def test_nothing_is_read_or_changed_through_a_link(store, tmp_path, place):
    path, outside = store.path / place, tmp_path / "outside"
    shutil.move(path, outside)
    path.symlink_to(outside)
    before = (store.path / "journal.jsonl").read_bytes()
    changes = (
        lambda: store.remove("done"),
        lambda: store.revoke("done"),
        lambda: store.unlearn("done", lambda folder: (folder / "adapter_config.json").write_text("{}"), {}),
        store.gated,
    )
    for change in changes:
        with pytest.raises(StoreError, match=r"outside|done.*: a link; only plain files belong in a store"):
            change()
    assert (store.path / "journal.jsonl").read_bytes() == before
    assert outside.exists()
    path.unlink()
    store.remove("done")  # the owner took the link away: the rest goes
    assert store.verify() == []
    assert outside.exists()


def test_several_processes_may_create_one_store_at_once(tmp_path, kit):
    with ThreadPoolExecutor(8) as pool:
        make = partial(Store.create, tmp_path / "shared", *kit.identity, exist_ok=True)
        opened = [pool.submit(make) for _ in range(16)]
    assert {store.result().head() for store in opened} == {Store.open(tmp_path / "shared").head()}
