"""Rows are collected in their order; several processes: tests/distributed."""

import pytest
import torch

from o3_lightning.metrics.collection import RowCollector

VALUES = [[0.1], [], [0.2, 1 / 3], [1e-300, 5.0, 6.0], [0.7], [7.5, 8.5], [2 / 3]]


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
