"""A server on a free port of the loopback, over a tiny model and a store with one protected request."""

import shutil
import threading
import time
from contextlib import contextmanager
from functools import partial

import httpx
import openai
import pytest
import uvicorn

from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.models.base import BaseConfig, load_base
from o3_lightning.run.config import RunConfig
from o3_lightning.run.live import protect_request
from o3_lightning.serving.config import ServeConfig
from o3_lightning.serving.server import make_app
from o3_lightning.store import Store

TOKEN = "only-for-tests"


def make_request(name, person):
    towns = ("Arlo", "Brim", "Crane", "Dunmere", "Eskdale", "Farrow")
    rows = [
        QuestionAnswer(f"Where did {person} spend winter {n}?", f"In {town}") for n, town in enumerate(towns)
    ]
    return UnlearningRequest(name, tuple(rows))


class Served:
    """A running server and ways to call it."""

    def __init__(self, url, app, store):
        self.url, self.app, self.store = url, app, store
        self.http = httpx.Client(base_url=url, timeout=30)
        self.openai = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30)
        self.ask = partial(self.openai.chat.completions.create, model="tiny", temperature=0, max_tokens=8)
        self.operator = {"Authorization": f"Bearer {TOKEN}"}

    def answer(self, question, **options):
        return (
            self.ask(messages=[{"role": "user", "content": question}], **options).choices[0].message.content
        )

    def metric(self, name):
        lines = [line for line in self.http.get("/metrics").text.splitlines() if line.startswith(name)]
        return sum(float(line.split()[-1]) for line in lines)


@pytest.fixture(scope="session")
def encoder(remembering_encoder):
    return remembering_encoder


@pytest.fixture(scope="session")
def base(tiny_base, tmp_path_factory):
    """The tiny model, loaded from a folder from which other processes load the same."""
    folder = tmp_path_factory.mktemp("base")
    tiny_base.model.save_pretrained(folder)
    tiny_base.tokenizer.save_pretrained(folder)
    return load_base(BaseConfig(id=str(folder)))


@pytest.fixture(scope="session")
def protected(tmp_path_factory, base, encoder):
    """The folder of a store with one protected request; to be copied."""
    path = tmp_path_factory.mktemp("protected") / "store"
    store = Store.create(path, base.id, base.digest, encoder.id, encoder.digest)
    protect_request(store, encoder, make_request("winters", "Quillan Osterhaus"), RunConfig())
    return path


@pytest.fixture(scope="session")
def serving(protected, base, encoder, tmp_path_factory):
    """A context manager that starts a server with some settings over a store of its own."""

    @contextmanager
    def start(token=TOKEN, run=None, **settings):
        path = tmp_path_factory.mktemp("served") / "store"
        shutil.copytree(protected, path)
        settings = {"served_model": "tiny", "train_requests": False, **settings}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("O3_SERVE_TOKEN", token)
            app = make_app(path, base, encoder, run or RunConfig(), ServeConfig(**settings))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield Served(f"http://127.0.0.1:{port}", app, Store.open(path))
        finally:
            server.should_exit = True
            thread.join()

    return start


@pytest.fixture(scope="module")
def served(serving):
    """A server with the default settings, for tests that leave its store as it is."""
    with serving() as server:
        yield server
