"""Dying at any moment of a change leaves the state before it or after it, and `verify` content."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from o3_lightning.common.errors import StoreError
from o3_lightning.store import Store

POINTS = ("mkdir", "fsync", "replace", "write", "unlink", "rmdir")


def run_and_die(step, subject, point, number):
    """True if a step, run in a fork that dies as by SIGKILL before call n of os.<point>, came that far."""
    child = os.fork()
    if child == 0:
        real, calls = getattr(os, point), [0]

        def counted(*args, **kwargs):
            calls[0] += 1
            if calls[0] == number:
                os._exit(9)
            return real(*args, **kwargs)

        setattr(os, point, counted)
        try:
            step(subject)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def snapshot(path):
    store = Store.open(path)
    assert store.verify() == []
    files = {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    del files["journal.jsonl"]
    return files


@pytest.mark.parametrize("event", ["register", "protect", "unlearn", "revoke", "restore", "remove"])
def test_kill_before_any_system_call_leaves_old_or_new_state(store, kit, tmp_path, event):
    steps = {
        "register": lambda s: s.register(kit.request("extra"), {}),
        "protect": lambda s: s.protect("noted", kit.detector),
        "unlearn": lambda s: s.unlearn("covered", kit.adapter, {"loss": 0.1}),
        "revoke": lambda s: s.revoke("done"),
        "restore": lambda s: s.restore("back"),
        "remove": lambda s: s.remove("done"),
    }
    old = snapshot(store.path)
    finished = tmp_path / "finished"
    shutil.copytree(store.path, finished)
    steps[event](Store.open(finished))
    new = snapshot(finished)
    assert old != new
    seen = []
    for point in POINTS:
        for number in range(1, 100):
            trial = tmp_path / "trial"
            shutil.copytree(store.path, trial)
            died = run_and_die(steps[event], Store.open(trial), point, number)
            seen.append(snapshot(trial))
            assert seen[-1] in (old, new), f"killed before os.{point} number {number}"
            shutil.rmtree(trial)
            if not died:
                assert seen[-1] == new
                break
    assert old in seen


def test_a_signal_after_any_system_call_leaves_old_or_new_state(store, kit, tmp_path, monkeypatch):
    """Ctrl-C and SIGTERM raise wherever the program is, also right after the line that commits a change."""
    old = snapshot(store.path)
    for point in ("write", "fsync", "replace", "close"):
        for number in range(1, 100):
            trial = tmp_path / "trial"
            shutil.copytree(store.path, trial)
            subject, real, calls = Store.open(trial), getattr(os, point), [0]

            def signalled(*args, real=real, calls=calls, number=number, **kwargs):
                found = real(*args, **kwargs)
                calls[0] += 1
                if calls[0] == number:
                    raise KeyboardInterrupt
                return found

            with monkeypatch.context() as patch, suppress(KeyboardInterrupt, StoreError):
                patch.setattr(os, point, signalled)
                subject.protect("noted", kit.detector)
            left = snapshot(trial)
            assert left == old or Store.open(trial).record("noted").status == "protected", (point, number)
            shutil.rmtree(trial)
            if calls[0] < number:
                break


def test_killed_create_is_finished_by_the_next(tmp_path, kit):
    for point in POINTS:
        for number in range(1, 20):
            path = tmp_path / f"{point}-{number}"
            died = run_and_die(lambda place: Store.create(place, *kit.identity), path, point, number)
            made = Store.create(path, *kit.identity, exist_ok=True)
            assert made.verify() == []
            assert made.records() == []
            if not died:
                break


def test_torn_line_of_a_killed_write_is_cut_off(store):
    journal = store.path / "journal.jsonl"
    lines = journal.read_bytes().count(b"\n")
    (store.path / f".pending-{lines}").mkdir()
    with open(journal, "ab") as stream:
        stream.write(b'{"digest": "12')
    assert store.verify() == []
    assert journal.read_bytes().count(b"\n") == lines
    assert journal.read_bytes().endswith(b"}\n")


def test_torn_line_without_a_write_under_way_is_damage(store):
    with open(store.path / "journal.jsonl", "ab") as stream:
        stream.write(b'{"digest": "12')
    with pytest.raises(StoreError, match=r"journal.jsonl:\d+: torn, and no interrupted write explains it"):
        Store.open(store.path)


def test_pending_files_that_the_journal_does_not_know_are_refused(store):
    lines = (store.path / "journal.jsonl").read_bytes().count(b"\n")
    pending = store.path / f".pending-{lines - 1}"
    pending.mkdir()
    (pending / "request.json").write_text("{}")
    with pytest.raises(StoreError, match="not the file that the journal's last line speaks of"):
        Store.open(store.path)


WORKER = """
import sys
sys.path[:0] = sys.argv[2:]
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.store import Store
store = Store.create(sys.argv[1], "base", "b", "encoder", "e", exist_ok=True)
def save(name):
    return lambda folder: (folder / name).write_bytes(bytes(200_000))
print("ready", flush=True)
number = len(store.records())
while True:
    name = f"r{number}"
    store.register(UnlearningRequest(name, (QuestionAnswer("p", "q"),)), {})
    store.protect(name, save("detector.safetensors"))
    store.unlearn(name, save("adapter_model.safetensors"), {"loss": 1.0})
    store.revoke(name)
    print("finished", name, flush=True)
    number += 1
"""


@pytest.mark.slow
def test_sigkill_at_random_moments_loses_no_finished_request(tmp_path):
    randomness, finished = random.Random(0), []
    for _ in range(50):
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path / "store"), *sys.path],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert worker.stdout.readline() == "ready\n"
        time.sleep(randomness.uniform(0, 0.6))
        worker.send_signal(signal.SIGKILL)
        finished += [line.split()[1] for line in worker.stdout if line.endswith("\n")]
        worker.wait()
        store = Store.open(tmp_path / "store")
        assert store.verify() == []
        status = {record.id: record.status for record in store.records()}
        assert {status[name] for name in finished} <= {"revoked"}
    assert len(finished) > 10
