"""What a run is said to take is what it takes, within a quarter."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.run.config import RunConfig
from o3_lightning.run.estimate import StepClock, steps_of

ROOT = Path(__file__).parents[2]
OFF = 0.25
# Seconds of the processor on one thread: a busy machine may stretch the wall time of one command only.
PROGRAM = (
    "import time; time.perf_counter = time.process_time; from o3_lightning.commands.cli import main; main()"
)


def call(command, output):
    words = [command, "--config", "configs/demo.yaml", "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def test_the_first_step_which_warms_up_is_not_counted():
    clock = StepClock()
    clock.times = [0.0, 9.0, 10.0, 12.0]
    assert clock.seconds == 1.5
    clock.times = [0.0, 9.0]
    assert clock.seconds == 9.0


def test_steps_are_counted_with_the_last_batch_that_is_not_full():
    rows = tuple(QuestionAnswer(f"p{number}", "a") for number in range(17))
    config = RunConfig()
    assert steps_of(config, UnlearningRequest("a", rows)) == -(-17 // config.adapter.batch_size) * (
        config.adapter.epochs
    )


@pytest.mark.slow
def test_an_estimate_is_within_a_quarter_of_the_run(tmp_path):
    lines = re.findall(r"^(\w+) .*?([\d.]+) (?:s|MiB)", call("estimate", tmp_path), re.MULTILINE)
    told = {name: float(number) for name, number in lines}
    assert not any(tmp_path.iterdir())  # it writes nothing
    call("run", tmp_path)
    metrics = json.loads((tmp_path / "demo/metrics.json").read_text())
    seconds = metrics["seconds"]
    took = {
        "detectors": sum(s for stage, s in seconds.items() if stage.endswith("-protect")),
        "adapters": sum(s for stage, s in seconds.items() if stage.endswith("-unlearn")),
        "evaluation": sum(s for stage, s in seconds.items() if stage.endswith(("-evaluate", "detectors"))),
        "overlaps": seconds["overlaps"],
    }
    assert sum(took.values()) == pytest.approx(sum(seconds.values()))  # no stage is left out
    expected = sum(told[stage] for stage in took)
    assert abs(expected - sum(took.values())) <= OFF * sum(took.values()), (told, took)
    for stage in ("adapters", "evaluation"):
        assert abs(told[stage] - took[stage]) <= OFF * took[stage], (stage, told, took)
    assert abs(told["memory"] - metrics["peak_memory_mib"]) <= OFF * metrics["peak_memory_mib"]
