"""What the tests of several rooms share; nothing here reaches the network."""

import gc
import json
import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_collection_modifyitems(items):
    """Runs the tests of the store first: they fork hundreds of times, which is slow in a large process."""
    items.sort(key=lambda item: item.path.parent.name != "store")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """Looks for no garbage among what the imports make, which all stays: a third of the collection's time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish(session):
    """Says once that there is no GPU, instead of in every test that was asked for and needs one."""
    if any(item.get_closest_marker("gpu") for item in session.items):
        import torch

        if not torch.cuda.is_available():
            pytest.exit("these tests need a CUDA device, and torch sees none", pytest.ExitCode.USAGE_ERROR)


@pytest.fixture(scope="session")
def tiny_base():
    """A random Llama, 2 layers x 32, with the embedded benchmark's real tokenizer."""
    import torch

    from o3_lightning.data.fictitious import training_rows
    from o3_lightning.data.templates import template_for
    from o3_lightning.models.base import BaseModel
    from o3_lightning.models.config import FictitiousBaseConfig
    from o3_lightning.models.fictitious import make_model, train_tokenizer

    config = FictitiousBaseConfig(layers=2, width=32, feed_forward=64, heads=2)
    tokenizer = train_tokenizer(training_rows(0), config.vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make_model(tokenizer, config).eval().requires_grad_(False)
    return BaseModel(model, tokenizer, template_for(tokenizer), "tiny", "0" * 64, config.context_tokens)


@pytest.fixture(scope="session")
def remembering_encoder():
    """The packaged encoder of the detectors; what it has read before it gives again, bit for bit."""
    from o3_lightning.detector.encoder import Encoder, load_encoder

    known = {}

    class Remembering(Encoder):
        def forward(self, tokens):
            key = tuple(map(tuple, tokens))
            if key not in known:
                known[key] = super().forward(tokens)
            return known[key].clone()

    return Remembering(**vars(load_encoder("minilm")))


@pytest.fixture
def stopped_within(monkeypatch):
    """Calls work that ends in an error within a function that it needs, which is then whole again."""

    def call(error, owner, name, work):
        def stop(*_):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, stop)
            with pytest.raises(error):
                work()

    return call


@pytest.fixture
def comparable():
    """Reads what a finished run measured, without what differs from start to start."""

    def read(folder):
        metrics = json.loads((folder / "metrics.json").read_text())
        for key in ("seconds", "peak_memory_mib", "environment", "store_head"):
            metrics.pop(key)
        for adapter in metrics["adapters"].values():
            adapter.pop("seconds")
        return metrics

    return read
