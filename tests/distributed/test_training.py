"""Two processes give what one gives: the same adapter, the same evaluation, the same rows collected."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from o3_lightning.training.processes import ALONE

FAST = ("npo", "several")  # all losses of rows and of steps; the other cases add objectives
PROGRAM = Path(__file__).with_name("tiny_training.py")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tiny():
    spec = importlib.util.spec_from_file_location("tiny_training", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def started(folder, strategy, cases, processes=2):
    """Starts the program in some processes; yields a function that waits for its results in the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    places = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_PORT": port}
    environment = {**os.environ, **{key: str(value) for key, value in places.items()}}
    environment |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    words = [sys.executable, str(PROGRAM), str(folder), strategy, *cases]
    program = subprocess.Popen(words, env=environment, start_new_session=True)

    def finish():
        assert program.wait(240) == 0
        return folder

    try:
        yield finish
    finally:
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)


def tensors_of(folder, case, processes=2):
    """What each process has trained."""
    return [load_file(folder / f"{case}-{rank}.safetensors") for rank in range(processes)]


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-5), name


@pytest.fixture(scope="module")
def together(tiny, tmp_path_factory):
    """Waits for what two processes find, who are started once: they take seconds to import torch."""
    with started(tmp_path_factory.mktemp("together"), "ddp", [*FAST, "measure"]) as finish:
        yield finish


def assert_trained_as_alone(tiny, finish, cases):
    base = tiny.make_base()
    alone = {case: tiny.train(base, case) for case in cases}
    folder = finish()
    for case, expected in alone.items():
        assert expected["curve.penalty"].min() > 0
        for found in tensors_of(folder, case):
            assert_same(found, expected)


def test_two_processes_train_the_adapter_of_one(tiny, together):
    assert_trained_as_alone(tiny, together, FAST)


@pytest.mark.slow
def test_two_processes_train_every_objective_as_one_does(tiny, tmp_path):
    others = tiny.CASES.keys() - {*FAST}
    with started(tmp_path, "ddp", sorted(others)) as finish:
        assert_trained_as_alone(tiny, finish, others)


def test_two_processes_evaluate_as_one_does(tiny, together):
    found = [json.loads((together() / f"measure-{rank}.json").read_text()) for rank in range(2)]
    assert [one["count"] for one in found] == [2, 2]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each of the two had
    try:
        alone = tiny.evaluate(tiny.make_base(), ALONE)
    finally:
        torch.set_num_threads(threads)
    assert set(alone) == {"answer_checks", "holdout", "other_tasks", "requests", "rows", "utility"}
    assert found[0]["evaluated"] == found[1]["evaluated"] == alone


def test_two_processes_collect_what_one_collects_in_the_same_order(tiny, together):
    for rank in range(2):
        found = json.loads((together() / f"measure-{rank}.json").read_text())["collected"]
        assert found == [[tiny.VALUES, [[float(rank)]]]] * len(tiny.SHARES)


@pytest.mark.slow
def test_a_sharded_base_trains_the_adapter_of_a_whole_one(tiny, tmp_path):
    cases = ["refusal", "npo"]
    with started(tmp_path, "fsdp", cases) as finish:
        assert_trained_as_alone(tiny, finish, cases)
