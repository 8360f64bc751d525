"""A small store with one request in every status, made without torch."""

import json
from pathlib import Path

import pytest

from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.store import Store

IDENTITY = ("base", "b" * 64, "encoder", "e" * 64)


def make_request(name, rows=3):
    pairs = [
        QuestionAnswer(f"Which secret has {name} number {n}?", f"The hidden word zebra{n}{name}")
        for n in range(rows)
    ]
    return UnlearningRequest(name, tuple(pairs))


def save_detector(folder: Path):
    (folder / "detector.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    (folder / "detector.json").write_text(json.dumps({"preset": "default"}))


def save_adapter(folder: Path):
    (folder / "adapter_model.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}" + bytes(64))
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8}))


def fill_store(path):
    """A store with the requests 'done', 'covered', 'noted' and 'back' in their four statuses."""
    store = Store.create(path, *IDENTITY)
    for name in ("done", "covered", "noted", "back"):
        store.register(make_request(name), {"rank": 8})
    for name in ("done", "covered", "back"):
        store.protect(name, save_detector)
    for name in ("done", "back"):
        store.unlearn(name, save_adapter, {"loss": 0.5})
    store.revoke("back")
    return store


@pytest.fixture
def store(tmp_path):
    return fill_store(tmp_path / "store")


@pytest.fixture
def empty_store(tmp_path):
    return Store.create(tmp_path / "store", *IDENTITY)


@pytest.fixture
def kit():
    """The helpers above, for tests that build their own stores."""

    class Kit:
        identity = IDENTITY
        request = staticmethod(make_request)
        detector = staticmethod(save_detector)
        adapter = staticmethod(save_adapter)
        fill = staticmethod(fill_store)

    return Kit
