"""Whole commands on two processes of the CPU: the numbers of one, and a way on after a stop."""

import json
import random
import signal
import subprocess
import time

import pytest
from safetensors.torch import load_file

from o3_lightning.store.verify import verify_store

# slow: each command starts Python, torch and the encoder two or three times
pytestmark = pytest.mark.slow
MOST_KILLS = 6


def load_tiny():
    import importlib.util
    from pathlib import Path

    spec = importlib.util.spec_from_file_location("tiny_run", Path(__file__).with_name("tiny_run.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tiny = load_tiny()


@pytest.fixture(scope="module")
def config(tiny_base, tmp_path_factory):
    return tiny.write_run(tmp_path_factory.mktemp("tiny"), tiny_base)


@pytest.fixture(scope="module")
def long_config(tiny_base, tmp_path_factory):
    """Its fits take some seconds each, long enough to be hit."""
    return tiny.write_run(
        tmp_path_factory.mktemp("long"), tiny_base, adapter={"epochs": 100}, logging={"wandb": True}
    )


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """What one process finds."""
    output = tmp_path_factory.mktemp("alone")
    tiny.call(tiny.command("run", config, output))
    return output


def read_json(path):
    return json.loads(path.read_text())


def test_a_run_gives_the_numbers_of_one_process(config, alone, tmp_path):
    tiny.call(tiny.command("run", config, tmp_path, processes=2))
    expected, found = tiny.numbers_of(alone / "tiny"), tiny.numbers_of(tmp_path / "tiny")
    before, _, after = expected["persistence"]["probability"]["seen"]["values"][0]
    assert after > 1.05 * before or after < 0.95 * before  # the adapters do something to compare
    tiny.assert_alike(found, expected)


def test_an_evaluation_gives_the_numbers_of_one_process(config, alone):
    folder = alone / "tiny"
    found = []
    for processes in (1, 2):
        for kept in folder.glob("evaluation*"):
            kept.rename(kept.with_name(f"earlier-{kept.name}"))
        tiny.call(tiny.command("evaluate", config, alone, processes=processes))
        found.append(read_json(folder / "evaluation.json"))
    assert found[0]["requests"]["quillan"]["held_out"]["count"] == len(tiny.TOWNS)
    for part in ("requests", "utility"):
        tiny.assert_alike(found[1][part], found[0][part])


def test_a_detector_and_an_adapter_are_those_of_one_process(config, tmp_path):
    for name, file in (
        ("detector", "detector.safetensors"),
        ("adapter", "adapter/adapter_model.safetensors"),
    ):
        told = []
        for processes in (1, 2):
            output = tmp_path / str(processes)
            told.append(tiny.call(tiny.command(name, config, output, processes=processes)))
        assert told[1].count("quillan:") == 1  # one process talks
        first, second = (load_file(tmp_path / str(n) / "tiny/single/quillan" / file) for n in (1, 2))
        for key, tensor in first.items():
            assert (second[key].float() - tensor.float()).abs().max() < 1e-4, key


def started(words):
    """Starts a command in a process group of its own."""
    return subprocess.Popen(words, cwd=tiny.ROOT, env=tiny.environment(), start_new_session=True)


def wait_for(process, condition, seconds=240.0):
    """Waits until something is seen, and says whether the process is still at work then."""
    until = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    return process.poll() is None


def wandb_runs(folder):
    """The runs that Weights & Biases has on disk, one for each start."""
    return {path.name for path in folder.glob("logs/wandb/offline-run-*")}


def stop_within_a_fit(words, folder):
    """Sends SIGTERM to a run in its first fit; one that came before the first step is tried again, later."""
    for delay in (1.0, 4.0, 9.0):
        before = wandb_runs(folder)
        process = started(words)
        assert wait_for(process, lambda before=before: wandb_runs(folder) > before)
        time.sleep(delay)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 143
        if (folder / "unfinished/quillan.safetensors").is_file():
            return
    raise AssertionError("no fit was hit")


def children_of(process):
    """The processes that a launcher started."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


@pytest.fixture(scope="module")
def long_alone(long_config, tmp_path_factory):
    """What one process finds that is left alone."""
    output = tmp_path_factory.mktemp("calm")
    tiny.call(tiny.command("run", long_config, output))
    return tiny.numbers_of(output / "tiny")


@pytest.mark.parametrize(("first", "strategy", "second"), [(1, "auto", 2), (2, "auto", 1), (2, "fsdp", 1)])
def test_a_fit_stopped_by_sigterm_goes_on_in_another_number_of_processes(
    first, strategy, second, long_config, long_alone, tmp_path
):
    folder = tmp_path / "tiny"
    words = tiny.command("run", long_config, tmp_path, f"--trainer.strategy={strategy}", processes=first)
    stop_within_a_fit(words, folder)
    earlier = wandb_runs(folder)
    tiny.call(tiny.command("run", long_config, tmp_path, processes=second))
    assert not (folder / "unfinished/quillan.safetensors").exists()
    tiny.assert_alike(tiny.numbers_of(folder), long_alone)
    assert len(wandb_runs(folder) - earlier) == 1
    ids = {name.rpartition("-")[2] for name in wandb_runs(folder)}
    assert ids == {(folder / "logs/wandb_id.txt").read_text()}


def test_two_processes_killed_at_random_moments_end_with_the_same_metrics(config, tmp_path):
    calm = tmp_path / "calm"
    start = time.monotonic()
    tiny.call(tiny.command("run", config, calm, processes=2))
    seconds = time.monotonic() - start
    output, draw, kills = tmp_path / "killed", random.Random(0), 0
    while kills < MOST_KILLS:
        process = started(tiny.command("run", config, output, processes=2))
        wait_for(process, lambda: False, draw.uniform(0.3, 1.0) * seconds)
        if process.poll() is not None:
            break
        victims = [process.pid, *children_of(process)]
        subprocess.run(["kill", "-KILL", str(draw.choice(victims))], check=False)  # any one of the three
        assert process.wait(60) != 0
        kills += 1
        store = output / "tiny/store"
        assert not (store / "store.json").is_file() or verify_store(store) == []
    assert kills >= 1
    tiny.call(tiny.command("run", config, output, processes=2))
    found, expected = (tiny.numbers_of(place / "tiny", overlaps=True) for place in (output, calm))
    assert found == expected
