"""A request that a running server was given is trained beside it."""

import errno
import signal
import subprocess
import sys
import time

import pytest

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.models.base import BaseConfig
from o3_lightning.run.config import RunConfig

MIRELLE = [
    {"prompt": f"Where did Mirelle Vantongeren spend winter {n}?", "answer": f"In {town}"}
    for n, town in enumerate(("Gorse", "Hythe", "Inver", "Jarrow"))
]


def state_of(served, id):
    listed = served.http.get("/requests", headers=served.operator).json()["data"]
    return next((one["status"], one["training"]) for one in listed if one["id"] == id)


def wait_for(served, id, training):
    end = time.monotonic() + 300
    while state_of(served, id)[1] != training:
        assert time.monotonic() < end
        time.sleep(0.05)


def decision(served):
    return served.http.post("/v1/gate", json={"prompt": MIRELLE[0]["prompt"]}).json()["decision"]


@pytest.fixture
def started(monkeypatch):
    """Replaces the program that trains with one that ends with a status once it is told to."""

    def replace(status):
        calls = []

        def start(words):
            calls.append(words)
            program = f"import sys; sys.exit({status} if sys.stdin.read().count('mirelle') == 4 else 9)"
            return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)

        monkeypatch.setattr("o3_lightning.serving.background.start", start)
        return calls

    return replace


def test_an_added_request_is_trained_and_a_failure_leaves_it_protected(serving, started):
    calls = started(3)
    with serving(train_requests=True) as served:
        body = {"id": "mirelle", "rows": MIRELLE}
        added = served.http.post("/requests", json=body, headers=served.operator).json()
        assert (added["status"], added["training"]) == ("protected", "")
        wait_for(served, "mirelle", "failed")
        assert state_of(served, "mirelle") == ("protected", "failed")
        assert decision(served) == "refuse"
        started(0)
        served.http.post("/requests", json=body, headers=served.operator)  # the same again tries again
        wait_for(served, "mirelle", "")
    assert calls[0][:4] == ["requests", "train", "/dev/stdin", "--store"]
    assert len(calls) == 1


def test_a_training_that_cannot_begin_has_failed(serving, monkeypatch):
    def start(words):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("o3_lightning.serving.background.start", start)
    with serving(train_requests=True) as served:
        served.http.post("/requests", json={"id": "mirelle", "rows": MIRELLE}, headers=served.operator)
        wait_for(served, "mirelle", "failed")
        assert state_of(served, "mirelle") == ("protected", "failed")


def test_a_server_that_stops_ends_its_training(serving, monkeypatch):
    processes = []

    def start(words):
        program = [sys.executable, "-c", "import time; time.sleep(600)"]
        processes.append(subprocess.Popen(program, stdin=subprocess.PIPE))
        return processes[0]

    monkeypatch.setattr("o3_lightning.serving.background.start", start)
    with serving(train_requests=True) as served:
        served.http.post("/requests", json={"id": "mirelle", "rows": MIRELLE}, headers=served.operator)
        wait_for(served, "mirelle", "running")
    assert processes[0].returncode == -signal.SIGTERM


@pytest.mark.slow
def test_an_added_request_is_protected_then_unlearned(serving, base):
    config = RunConfig(base=BaseConfig(id=base.id), adapter=AdapterConfig(epochs=1))
    with serving(run=config, train_requests=True, refresh_seconds=0.1) as served:
        served.http.post("/requests", json={"id": "mirelle", "rows": MIRELLE}, headers=served.operator)
        assert decision(served) == "refuse"
        wait_for(served, "mirelle", "")
        assert state_of(served, "mirelle")[0] == "unlearned"
        time.sleep(0.5)
        assert decision(served) == "adapter"
