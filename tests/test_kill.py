"""A real run under SIGKILL at random moments ends with the metrics of an undisturbed one."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from o3_lightning.store.verify import verify_store

ROOT = Path(__file__).parents[1]
KILLS = 10
SHORTEST, LONGEST = 5.0, 16.0  # seconds; imports take about four of them
SMALL = [
    "--data.count=2",
    "--data.rows_per_request=12",
    "--data.utility_rows=12",
    '--evaluation.metrics=["accuracy","probability"]',
]


def command(output):
    return [sys.executable, "train.py", "run", "--config", "configs/demo.yaml", *SMALL, f"--output={output}"]


def comparable(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    return {key: metrics[key] for key in ("persistence", "utility_metrics", "detector", "overlaps", "u2r")}


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_metrics(tmp_path):
    subprocess.run(command(tmp_path / "calm"), cwd=ROOT, check=True)
    draw, finished = random.Random(0), []
    for _ in range(KILLS):
        process = subprocess.Popen(command(tmp_path / "killed"), cwd=ROOT)
        try:
            process.wait(draw.uniform(SHORTEST, LONGEST))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        store = tmp_path / "killed" / "demo" / "store"
        if (store / "store.json").exists():
            assert verify_store(store) == []
        stages = sorted(path.name for path in (tmp_path / "killed/demo/stages").glob("*.json"))
        assert set(finished) <= set(stages)
        finished = stages
    subprocess.run(command(tmp_path / "killed"), cwd=ROOT, check=True)
    assert comparable(tmp_path / "killed" / "demo") == comparable(tmp_path / "calm" / "demo")
