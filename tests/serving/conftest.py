"""A server on a free port of the loopback, over a tiny model and a store with one protected request."""

import threading
import time
from contextlib import contextmanager
from functools import partial

import httpx
import openai
import pytest
import uvicorn

from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.detector.encoder import load_encoder
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
def encoder():
    return load_encoder("minilm")


@pytest.fixture
def store(tmp_path, tiny_base, encoder):
    store = Store.create(tmp_path / "store", "tiny", tiny_base.digest, encoder.id, encoder.digest)
    protect_request(store, encoder, make_request("winters", "Quillan Osterhaus"), RunConfig())
    return store


@pytest.fixture
def serving(store, tiny_base, encoder, monkeypatch):
    """A context manager that starts a server with some settings."""

    @contextmanager
    def start(token=TOKEN, **settings):
        monkeypatch.setenv("O3_SERVE_TOKEN", token)
        app = make_app(store.path, tiny_base, encoder, RunConfig(), ServeConfig(**settings))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield Served(f"http://127.0.0.1:{port}", app, store)
        finally:
            server.should_exit = True
            thread.join()

    return start
