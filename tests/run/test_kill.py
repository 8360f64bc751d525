"""Real processes under SIGKILL at random moments: nothing finished is lost, and the end is the same."""

import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from o3_lightning.store.store import Store
from o3_lightning.store.verify import verify_store

ROOT = Path(__file__).parents[2]
KILLS = 50
SHORTEST, LONGEST = 4.0, 16.0  # seconds; imports take about four of them
SMALL = [
    "--data.count=2",
    "--data.rows_per_request=12",
    "--data.utility_rows=12",
    '--evaluation.metrics=["accuracy","probability"]',
]
ORDER = ("registered", "protected", "unlearned", "revoked")


def run_command(output):
    return [sys.executable, "train.py", "run", "--config", "configs/demo.yaml", *SMALL, f"--output={output}"]


def revoke_and_restore(store):
    """A process that revokes and restores the last request until it is killed."""
    lines = (
        "from o3_lightning.store.store import Store",
        f"store = Store.open({str(store)!r})",
        "name = store.records()[-1].id",
        "while True:",
        "    store.restore(name) if store.records()[-1].status == 'revoked' else store.revoke(name)",
    )
    return [sys.executable, "-c", "\n".join(lines)]


def killed(command, seconds):
    """Runs a command and kills it after some seconds (None: never); says whether it was still running."""
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    assert process.returncode == 0
    return False


def status_of(store):
    """Every request's status, after a check of the whole store; nothing where there is no store yet."""
    if not (store / "store.json").exists():
        return {}
    assert verify_store(store) == []
    return {record.id: record.status for record in Store.open(store).records()}


@pytest.mark.slow
def test_runs_killed_at_fifty_random_moments_lose_nothing_and_end_with_the_same_metrics(tmp_path, comparable):
    subprocess.run(run_command(tmp_path / "calm"), cwd=ROOT, check=True)
    calm, folder = comparable(tmp_path / "calm/demo"), tmp_path / "killed/demo"
    draw, kills, runs, before = random.Random(0), 0, 0, {}
    while kills < KILLS or before:
        patience = draw.uniform(SHORTEST, LONGEST) if kills < KILLS else None
        was_killed = killed(run_command(tmp_path / "killed"), patience)
        kills += was_killed
        after = status_of(folder / "store")
        assert all(ORDER.index(after[name]) >= ORDER.index(status) for name, status in before.items())
        before = after
        if was_killed:
            continue
        assert comparable(folder) == calm
        runs += 1
        kills += killed(revoke_and_restore(folder / "store"), draw.uniform(SHORTEST, LONGEST))
        assert set(status_of(folder / "store")) == set(before)
        shutil.rmtree(folder)
        before = {}
    assert runs >= 2
