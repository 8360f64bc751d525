"""A release of three given rows from the tiny model."""

import copy
import json
from dataclasses import replace

import pytest

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.release import context
from o3_lightning.release import release as loop
from o3_lightning.release.config import ReleaseConfig
from o3_lightning.reveal.config import SamplingConfig


def copy_of(base):
    return replace(base, model=copy.deepcopy(base.model))


@pytest.fixture
def config(tmp_path):
    rows = [
        {"prompt": f"Who is number {n}?", "answer": word} for n, word in enumerate(["Ann", "Bob", "Carl"])
    ]
    path = tmp_path / "given.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return ReleaseConfig(
        output=str(tmp_path),
        requests=(str(path),),
        rounds=2,
        steps=2,
        lambdas=(0.5, 2.0),
        budget=100.0,
        neutral=8,
        stop=0.0,
        adapter=AdapterConfig(rank=2, alpha=4, epochs=2, learning_rate=1e-2),
        sampling=SamplingConfig(max_new_tokens=4),
    )


@pytest.fixture
def tiny(monkeypatch, tiny_base):
    for module in (loop, context):
        monkeypatch.setattr(module, "load_base", lambda *_: copy_of(tiny_base))
    return tiny_base
