"""SIGKILL at random moments of every change, with two writers, links and a full disk: the store verifies.

The writers are forks, so that a thousand kills take minutes. Each writes what it finished into a pipe.
"""

import os
import random
import resource
import signal
import time
from collections import Counter
from contextlib import contextmanager

import pytest

from o3_lightning.common.errors import StoreError
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.store import Store

WRITERS = 2
LONGEST = 0.6  # seconds until a kill; a change takes 0.01 to 0.05
BYTES, LEFT = 100_000, 2_000  # of an adapter; by which the journal may grow while the disk is full
KILLS = 200  # of one store
STEPS = {  # in this order; each with the status after it
    "register": "registered",
    "protect": "protected",
    "unlearn": "unlearned",
    "revoke": "revoked",
    "restore": "unlearned",
    "remove": None,
}
BYSTANDER = "still"


def save(name):
    return lambda folder: (folder / name).write_bytes(bytes(BYTES))


def take(store, name, step):
    """One change of one request."""
    if step == "register":
        store.register(UnlearningRequest(name, (QuestionAnswer("p", "q"),)), {})
    elif step == "protect":
        store.protect(name, save("detector.safetensors"))
    elif step == "unlearn":
        store.unlearn(name, save("adapter_model.safetensors"), {"loss": 1.0})
    else:
        getattr(store, step)(name)


def change_for_ever(path, number, pipe, draw):
    """A writer: takes new requests through all of their states, and says what it finished or was refused."""
    store = Store.open(path)

    def attempt(name, step):
        try:
            take(store, name, step)
        except StoreError as error:
            if not any(reason in str(error) for reason in ("too large", "a link")):
                raise
            os.write(pipe, f"refused {name} {step}\n".encode())
            return False
        os.write(pipe, f"done {name} {step}\n".encode())
        return True

    for name in [record.id for record in store.records() if record.id.startswith(f"w{number}.")]:
        attempt(name, "remove")
    while True:
        name = f"w{number}.{draw.randrange(10**9)}"
        attempt(BYSTANDER, draw.choice(("revoke", "restore")))
        for step in STEPS:
            if not attempt(name, step):
                break


def start_writer(path, number, draw, change, *, full):
    """Forks a process that changes the store; returns its id and a pipe that tells what it did."""
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return child, read
    try:
        if full:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            limit = (path / "journal.jsonl").stat().st_size + draw.randrange(LEFT)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        change(path, number, write, draw)
    except BaseException as error:
        os.write(write, f"failed {type(error).__name__} {' '.join(str(error).split())}\n".encode())
    finally:
        os._exit(1)


def kill_once(path, draw, change=change_for_ever, longest=LONGEST, *, full):
    """Starts two writers and kills them; returns the lines of both."""
    writers = [start_writer(path, n, random.Random(draw.random()), change, full=full) for n in range(WRITERS)]
    time.sleep(draw.uniform(0, longest))
    for child, _ in writers:
        os.kill(child, signal.SIGKILL)
    lines = []
    for child, read in writers:
        killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        with os.fdopen(read) as stream:
            told = [tuple(line.split(maxsplit=2)) for line in stream if line.endswith("\n")]
        assert killed, told
        lines.append(told)
    return lines


def check_store(path, lines):
    """The store opens, verifies, and holds each finished change or the one after it."""
    store = Store.open(path)
    assert store.verify() == []
    here = {record.id: record.status for record in store.records()}
    for told in lines:
        finished = [(name, step.strip()) for word, name, step in told if word == "done" and name != BYSTANDER]
        if not finished:
            continue
        name, step = finished[-1]
        order = list(STEPS)
        following = order[min(order.index(step) + 1, len(order) - 1)]
        assert here.get(name) in (STEPS[step], STEPS[following]), (name, step)


@contextmanager
def linked(path, elsewhere, really):
    """Puts the bystander's adapter outside of the store behind a link: nothing there may change."""
    if not really:
        yield
        return
    place, outside = path / "requests" / BYSTANDER / "adapter", elsewhere / "adapter"
    place.rename(outside)
    place.symlink_to(outside)
    before = {file.name: file.read_bytes() for file in outside.iterdir()}
    yield
    assert {file.name: file.read_bytes() for file in outside.iterdir()} == before
    place.unlink()
    outside.rename(place)


def kill_writers(path, elsewhere, seed, kills):
    """Kills writers again and again; returns how often each step was finished, and how many were refused."""
    draw, counts = random.Random(seed), Counter()
    store = Store.create(path, "base", "b", "encoder", "e")
    for step in list(STEPS)[:3]:
        take(store, BYSTANDER, step)
    for _ in range(kills // WRITERS):
        full = draw.random() < 0.2
        with linked(path, elsewhere, draw.random() < 0.2):
            lines = kill_once(path, draw, full=full)
        check_store(path, lines)
        for word, name, step in (line for told in lines for line in told):
            kind = "refused links" if name == BYSTANDER else "refused by the disk"
            counts[step.strip() if word == "done" else kind] += 1
    return counts


def test_twenty_kills_of_two_writers_leave_a_store_that_verifies(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    kill_writers(tmp_path / "store", tmp_path / "elsewhere", 0, 20)


@pytest.mark.slow
def test_a_thousand_kills_of_two_writers_leave_a_store_that_verifies(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    found = Counter()
    for seed in range(1000 // KILLS):
        found += kill_writers(tmp_path / f"store_{seed}", tmp_path / "elsewhere", seed, KILLS)
    assert min(found[kind] for kind in (*STEPS, "refused links", "refused by the disk")) > 20, found
