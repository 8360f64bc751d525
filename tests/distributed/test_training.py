"""Two processes give the adapter that one gives: same batches, same losses, one penalty."""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

PROGRAM = Path(__file__).with_name("tiny_training.py")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tiny():
    spec = importlib.util.spec_from_file_location("tiny_training", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_together(folder, strategy, cases, processes=2):
    """Runs the program in some processes and returns what each has trained, by case."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in range(processes):
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        environment = {**os.environ, **{key: str(value) for key, value in places.items()}}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
        words = [sys.executable, str(PROGRAM), str(folder), strategy, *cases]
        started.append(subprocess.Popen(words, env=environment))
    try:
        assert [process.wait(240) for process in started] == [0] * processes
    finally:
        for process in started:
            process.kill()
    return {
        case: [load_file(folder / f"{case}-{rank}.safetensors") for rank in range(processes)]
        for case in cases
    }


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-5), name


def test_two_processes_train_the_adapter_of_one(tiny, tmp_path):
    both = run_together(tmp_path, "ddp", list(tiny.CASES))
    base = tiny.make_base()
    for case, (first, second) in both.items():
        alone = tiny.train(base, case)
        assert alone["curve.penalty"].min() > 0
        assert_same(first, alone)
        assert_same(second, alone)


@pytest.mark.slow
def test_a_sharded_base_trains_the_adapter_of_a_whole_one(tiny, tmp_path):
    both = run_together(tmp_path, "fsdp", ["refusal", "npo"])
    base = tiny.make_base()
    for case, found in both.items():
        alone = tiny.train(base, case)
        for own in found:
            assert own["curve.penalty"].min() > 0
            assert_same(own, alone)
