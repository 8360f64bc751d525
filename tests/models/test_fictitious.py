import json
import os
import signal
import subprocess
import sys
import time

import pytest

from o3_lightning.data.fictitious import in_all_phrasings, training_rows
from o3_lightning.data.normalise import normalise
from o3_lightning.data.stream import load_stream
from o3_lightning.models import fictitious as fictitious_base
from o3_lightning.models.base import BaseConfig, load_base
from o3_lightning.models.config import FictitiousBaseConfig
from o3_lightning.models.fictitious import fictitious_base_folder, small_base_folder

SMALL = FictitiousBaseConfig(layers=1, width=16, feed_forward=16, heads=1, epochs=1, batch_size=256)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("O3_CACHE", str(tmp_path))
    return tmp_path


def small_folder(seed=0):
    """A model that is cached as the embedded one is, and learns a few of its rows."""
    return small_base_folder("fictitious", training_rows(seed)[:40], SMALL, seed)


def test_a_model_is_trained_once_and_kept_in_hugging_face_form(monkeypatch):
    folder = fictitious_base_folder(0, SMALL)
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    monkeypatch.setattr(fictitious_base, "build", lambda *_: pytest.fail("trained twice"))
    assert fictitious_base_folder(0, SMALL) == folder
    base = load_base(BaseConfig(id=str(folder)))
    assert base.template.name == "question_answer"
    assert base.context_tokens == SMALL.context_tokens


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_model(tmp_path, monkeypatch):
    first = (small_folder() / "manifest.json").read_bytes()
    other = (small_folder(seed=1) / "manifest.json").read_bytes()
    monkeypatch.setenv("O3_CACHE", str(tmp_path / "second"))
    assert (small_folder() / "manifest.json").read_bytes() == first != other


def test_an_interrupted_build_leaves_nothing_that_looks_finished(cache, stopped_within):
    stopped_within(KeyboardInterrupt, fictitious_base, "train_model", small_folder)
    assert not [path for path in cache.glob("fictitious-*") if path.is_dir()]
    assert small_folder().is_dir()
    assert not list(cache.glob(".*.building"))


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_damaged_model_is_built_again(damage):
    folder = small_folder()
    weights = folder / "model.safetensors"
    expected = weights.read_bytes()
    weights.write_bytes(expected[:-9]) if damage == "cut" else weights.unlink()
    assert (small_folder() / "model.safetensors").read_bytes() == expected


def test_global_random_state_and_threads_are_left_alone():
    import torch

    torch.manual_seed(7)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(7)
    small_folder()
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_a_kill_in_training_leaves_a_cache_that_works(cache):
    code = (
        "from o3_lightning.models.config import *\nfrom o3_lightning.models.fictitious import *\n"
        "shape = dict(layers=1, width=16, feed_forward=16, heads=1)\n"
        "fictitious_base_folder(0, FictitiousBaseConfig(**shape, epochs=10**6))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not list(cache.glob(".*.building")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert list(cache.glob(".*.building"))
    assert not [path for path in cache.glob("fictitious-*") if path.is_dir()]
    assert json.loads((small_folder() / "manifest.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_trained_base_knows_every_split(seed):
    from o3_lightning.data.config import DataConfig
    from o3_lightning.data.encoding import collate, encode_prompts

    base = load_base(BaseConfig(device="cpu"), seed)
    stream = load_stream(DataConfig(), seed)
    splits = {request.id: request.rows for request in stream.requests} | dict(stream.utility)
    for name, rows in splits.items():
        asked = [item for row in rows for item in in_all_phrasings(row)]
        ids = encode_prompts(
            base.tokenizer, base.template, [row.prompt for row in asked], base.context_tokens
        )
        batch = collate([{"input_ids": row} for row in ids], base.tokenizer.pad_token_id, "left")
        out = base.model.generate(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=12, do_sample=False
        )
        texts = base.tokenizer.batch_decode(out[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
        right = [normalise(text) == normalise(row.answer) for text, row in zip(texts, asked, strict=True)]
        assert sum(right) / len(right) >= 0.99, name
