"""The torchmetrics classes give on several processes what the functions give on one."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from o3_lightning.common.plain import mean_of
from o3_lightning.metrics.evidence import Evidence
from o3_lightning.metrics.modules import ComparisonMetric, ExampleMetric
from o3_lightning.metrics.registry import measure
from o3_lightning.metrics.separation import area_under_roc

ROOT = Path(__file__).parents[2]
OPTIONS = ["Rome", "Paris", "Oslo"]
ANSWERS = ["A", "B", "gl gl", "C", "The answer is B.", "", "Rome"]
TRUTHS = ["A", "A", "B", "C", "B", "A", "A"]
PROGRAM = """
import json, os, sys
import torch.distributed as dist
from o3_lightning.metrics.evidence import Evidence
from o3_lightning.metrics.modules import ComparisonMetric, ExampleMetric
rank, folder = int(sys.argv[1]), sys.argv[2]
inputs = json.loads(open(folder + "/inputs.json").read())
dist.init_process_group("gloo", init_method="file://" + folder + "/meet", rank=rank, world_size=2)
results = []
for case in inputs["cases"]:
    metric, pairs = ExampleMetric("multiple_choice"), ComparisonMetric("auroc")
    for batch in case["batches"][rank]:
        rows = [inputs["rows"][number] for number in batch]
        metric.update(
            Evidence("keep", [""] * len(rows), [row[1] for row in rows], answers=[row[0] for row in rows],
                     choices=[inputs["options"]] * len(rows)), batch)
    for first in (True, False):
        batch = case["groups"][rank][first]
        if batch:
            pairs.update([inputs["scores"][first][number] for number in batch], batch, first=first)
    results.append(
        {"mean": metric.compute().item(), "examples": metric.examples(), "auroc": pairs.compute().item()})
open(folder + f"/result{rank}.json", "w").write(json.dumps(results))
dist.destroy_process_group()
"""
SCORES = [[0.1, 0.7, 0.3], [0.9, 0.5]]
CASES = [
    {  # uneven, and one example twice
        "batches": [[[0, 2, 4], [6]], [[1, 3], [5], [0]]],
        "groups": [[[0, 2], [0]], [[1], [1]]],
    },
    {  # one process without any
        "batches": [[[0, 1, 2, 3, 4, 5, 6]], []],
        "groups": [[[0, 1, 2], [0, 1]], [[], []]],
    },
]


def evidence(numbers):
    return Evidence(
        "keep",
        [""] * len(numbers),
        [TRUTHS[number] for number in numbers],
        answers=[ANSWERS[number] for number in numbers],
        choices=[OPTIONS] * len(numbers),
    )


def test_two_processes_give_what_one_gives(tmp_path):
    rows = list(zip(ANSWERS, TRUTHS, strict=True))
    inputs = {"rows": rows, "options": OPTIONS, "scores": SCORES, "cases": CASES}
    (tmp_path / "inputs.json").write_text(json.dumps(inputs))
    started = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(rank), str(tmp_path)], cwd=ROOT, stderr=-1)
        for rank in range(2)
    ]
    for process in started:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors.decode()
    values = measure("multiple_choice", evidence(range(len(ANSWERS))))
    for rank in range(2):
        results = json.loads((tmp_path / f"result{rank}.json").read_text())
        assert len(results) == len(CASES)
        for result in results:
            assert list(result["examples"].values()) == list(values)
            assert result["mean"] == mean_of(values)
            assert result["auroc"] == area_under_roc(SCORES[1], SCORES[0])


def test_order_of_batches_changes_nothing_and_reset_forgets():
    metric = ExampleMetric("multiple_choice")
    for batch in ([5, 1], [0, 6, 3], [4, 2]):
        metric.update(evidence(batch), batch)
    values = measure("multiple_choice", evidence(range(len(ANSWERS))))
    assert list(metric.examples().values()) == list(values)
    assert metric.compute().item() == mean_of(values)
    metric.reset()
    assert metric.examples() == {}
    assert math.isnan(metric.compute().item())


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="expected 2 numbers of examples, got 1"):
        ExampleMetric("multiple_choice").update(evidence([0, 1]), [0])
    with pytest.raises(ValueError, match="expected a metric out of accuracy"):
        ExampleMetric("acuracy")
    with pytest.raises(ValueError, match="expected a comparison out of"):
        ComparisonMetric("acuracy")
    assert math.isnan(ComparisonMetric("auroc").compute().item())
