"""What a run is said to take is what it takes, within a quarter."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OFF = 0.25
# Seconds of the processor on one thread: a busy machine may stretch the wall time of one command only.
PROGRAM = "import time; time.perf_counter = time.process_time; from o3_lightning.cli import main; main()"


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
