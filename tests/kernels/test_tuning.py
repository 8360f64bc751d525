"""Measured block sizes: found by shape and device, merged into the plan, absent where nobody measured."""

import json
from typing import NamedTuple

import pytest
import torch

from benchmarks.kernels.tune import variations
from o3_kernels import tuning


class Plan(NamedTuple):
    block: int
    warps: int


def rule(rows, width):
    return Plan(block=min(rows, 64), warps=4)


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """One entry for a device that torch calls "NVIDIA Some GPU"."""
    (tmp_path / "nvidia-some-gpu.json").write_text(json.dumps({"scores 64 128": {"warps": 8}}))
    monkeypatch.setattr(tuning, "TABLES", tmp_path)
    monkeypatch.setattr(tuning, "_device_name", lambda index: ["NVIDIA Some GPU", "Other"][index])


@pytest.mark.parametrize(
    ("sizes", "device", "warps"),
    [
        ((64, 128), "cuda:0", 8),
        ((33, 100), "cuda:0", 8),
        ((32, 128), "cuda:0", 4),
        ((64, 128), "cuda:1", 4),
        ((64, 128), "cpu", 4),
    ],
)
def test_measured_sizes_are_taken_where_they_belong(measured, sizes, device, warps):
    assert tuning.chosen_plan("scores", rule, sizes, torch.device(device)) == Plan(min(sizes[0], 64), warps)


def test_variations_set_and_multiply_and_come_once():
    changes = ({"block": 2.0}, {"block": 0.1}, {"warps": 8}, {"warps": 4}, {"block": 2.0, "warps": 8})
    assert variations(Plan(32, 4), changes) == [
        Plan(32, 4),
        Plan(64, 4),
        Plan(16, 4),
        Plan(32, 8),
        Plan(64, 8),
    ]
