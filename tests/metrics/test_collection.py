"""What several processes collect is what one collects, in the same order."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from o3_lightning.metrics.collection import RowCollector

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, sys
import torch
import torch.distributed as dist
from o3_lightning.metrics.collection import RowCollector
rank, folder = int(sys.argv[1]), sys.argv[2]
inputs = json.loads(open(folder + "/inputs.json").read())
dist.init_process_group("gloo", init_method="file://" + folder + "/meet", rank=rank, world_size=2)
results = []
for case in inputs["cases"]:
    collector = RowCollector(torch.float64)
    for batch in case[rank]:
        values = [torch.tensor(inputs["values"][row], dtype=torch.float64) for row in batch]
        collector.update(batch, values)
    alone = RowCollector(torch.float64, sync=False)
    alone.update([0], [torch.tensor([float(rank)])])
    results.append([[row.reshape(-1).tolist() for row in one.compute()] for one in (collector, alone)])
open(folder + f"/result{rank}.json", "w").write(json.dumps(results))
dist.destroy_process_group()
"""
VALUES = [[0.1], [], [0.2, 1 / 3], [1e-300, 5.0, 6.0], [0.7], [7.5, 8.5], [2 / 3]]
CASES = [
    [[[0, 2, 4], [6]], [[1, 3], [5], [0]]],  # uneven, and one row twice
    [[[0, 1, 2, 3, 4, 5, 6]], []],  # one process without any
    [[[5, 1], [6, 4]], [[3, 0, 2]]],
]


def test_two_processes_give_what_one_gives(tmp_path):
    (tmp_path / "inputs.json").write_text(json.dumps({"values": VALUES, "cases": CASES}))
    started = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(rank), str(tmp_path)], cwd=ROOT, stderr=-1)
        for rank in range(2)
    ]
    for process in started:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors.decode()
    for rank in range(2):
        results = json.loads((tmp_path / f"result{rank}.json").read_text())
        assert results == [[VALUES, [[float(rank)]]]] * len(CASES)


def test_order_of_batches_changes_nothing_and_reset_forgets():
    collector = RowCollector(torch.float64)
    for batch in ([5, 1], [0, 6, 3], [4, 2]):
        collector.update(batch, [torch.tensor(VALUES[row], dtype=torch.float64) for row in batch])
    assert [row.reshape(-1).tolist() for row in collector.compute()] == VALUES
    collector.reset()
    assert collector.compute() == ()


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="expected 1 values, one per row, got 2"):
        RowCollector().update([0], [torch.zeros(1), torch.zeros(1)])
