"""SIGKILL within real training: two processes take requests through one store and go on where they were.

The processes are forks with a tiny model in memory. Each keeps the progress of its fit after every step, as
`StepKeeper` does every few minutes; a fit that was killed and continued ends with the bits of a calm one.
"""

import os
import random
import shutil
import time
from collections import Counter

import pytest
import torch

import o3_lightning.adapter.unfinished as unfinished_module
import o3_lightning.run.unlearner as unlearner_module
from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.common.errors import StoreError
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.models.lora import LoraFactors
from o3_lightning.run.config import RunConfig
from o3_lightning.run.unlearner import Unlearner
from o3_lightning.store import Store
from tests.store.test_kills import BYSTANDER, WRITERS, kill_once, linked

LONGEST = 3  # times a calm unlearning, until a kill; the other writer trains meanwhile
CONFIG = RunConfig(adapter=AdapterConfig(rank=2, epochs=3, batch_size=3, learning_rate=1e-2))
AFTER = {None: "register", "registered": "protect", "protected": "unlearn", "revoked": "restore"}


def make_request(name):
    rows = zip("abcdefgh", ["Bern", "Kiev", "Lima", "Riga"] * 2, strict=True)
    return UnlearningRequest(
        name, tuple(QuestionAnswer(f"Where is {name}{key}?", city) for key, city in rows)
    )


def forked(work):
    """Runs work in a process of its own: torch cannot train in a fork of a process that has trained."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def kills(tiny_base, remembering_encoder, tmp_path):
    """A function that kills writers of one store; returns how often each step was finished and cut."""
    trainer = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}

    def unlearner(path):
        return Unlearner(tiny_base, path, CONFIG, trainer, encoder=remembering_encoder)

    def train_calmly(path, name):
        """Takes a request to its adapter; returns the seconds of the unlearning."""
        forked(lambda: unlearner(path).protect(make_request(name)))
        start = time.monotonic()
        forked(lambda: unlearner(path).unlearn(make_request(name)))
        return time.monotonic() - start

    def change_for_ever(path, number, pipe, draw):
        unfinished_module.SECONDS_BETWEEN = 0.0
        seen = watch_history()
        mine, name = unlearner(path), f"w{number}"
        request, kept = make_request(name), tmp_path / f"unfinished_{number}.safetensors"
        while True:
            here = {record.id: record.status for record in mine.store.records()}
            step = AFTER.get(here.get(name)) or draw.choice(("unlearn", "revoke", "remove", "remove"))
            os.write(pipe, f"begun {name} {step}\n".encode())
            try:
                if step == "register":
                    mine.register(request)
                elif step == "protect":  # with the detector of the calm store, so that most kills cut a fit
                    mine.store.protect(name, detector_of(name))
                elif step == "unlearn":
                    mine.unlearn(request, unfinished=kept)
                    check_bits(path, name, seen[-1])
                else:
                    getattr(mine.store, step)(name)
            except (StoreError, OSError) as error:
                if not any(reason in str(error) for reason in ("too large", "a link")):
                    raise
                os.write(pipe, f"refused {name} {step}\n".encode())
            else:
                os.write(pipe, f"done {name} {step}\n".encode())

    def detector_of(name):
        calm = tmp_path / f"calm_{name}/requests" / name
        parts = [part for part in calm.iterdir() if part.is_file() and part.name != "request.json"]
        return lambda folder: [shutil.copy(part, folder) for part in parts]

    def check_bits(path, name, history):
        """After an unlearning beside the bystander alone: the adapter of a fit that was never killed."""
        if history != (BYSTANDER,):
            return
        found, calm = (
            LoraFactors.load(root / "requests" / name / "adapter")
            for root in (path, tmp_path / f"calm_{name}")
        )
        for module, pair in calm.pairs.items():
            assert all(map(torch.equal, found.pairs[module], pair)), f"{name}: {module} differs"

    def run(count, seed):
        draw, found, path = random.Random(seed), Counter(), tmp_path / "store"
        train_calmly(path, BYSTANDER)
        for number in range(WRITERS):
            name = f"w{number}"
            shutil.copytree(path, tmp_path / f"calm_{name}")
            seconds = train_calmly(tmp_path / f"calm_{name}", name)
        (tmp_path / "elsewhere").mkdir()
        for _ in range(count // WRITERS):
            full = draw.random() < 0.1
            with linked(path, tmp_path / "elsewhere", draw.random() < 0.1):
                lines = kill_once(path, draw, change_for_ever, LONGEST * seconds, full=full)
            store = Store.open(path)
            assert store.verify() == []
            assert BYSTANDER in {record.id for record in store.records()}
            for told in lines:
                found.update((word, step.strip()) for word, _, step in told)
                if told and told[-1][0] == "begun":
                    found["cut", told[-1][2].strip()] += 1
        return found

    return run


def watch_history():
    """Returns a list that grows with the ids of the earlier requests of every fit."""
    seen, train = [], unlearner_module.train_request

    def watched(base, request, history, *more, **named):
        seen.append(history.ids)
        return train(base, request, history, *more, **named)

    unlearner_module.train_request = watched
    return seen


def test_four_kills_within_training_leave_a_store_that_verifies(kills):
    assert kills(4, 0)["cut", "unlearn"] > 0


@pytest.mark.slow
def test_two_hundred_kills_within_training_leave_a_store_that_verifies(kills):
    found = kills(200, 1)
    assert found["cut", "unlearn"] > 100, found
    assert found["done", "unlearn"] > 10, found
