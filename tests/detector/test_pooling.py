"""One vector per row and layer out of padded hidden states."""

import pytest
import torch

from o3_lightning.detector.encoder import pool_hidden_states

HIDDEN = torch.tensor([[[1.0, 3.0, 9.0], [2.0, 5.0, 7.0]], [[10.0, 30.0, 90.0], [20.0, 50.0, 70.0]]])[
    ..., None
]


@pytest.mark.parametrize(
    ("pooling", "right", "left"),
    [
        ("first", [1.0, 2.0], [3.0, 7.0]),
        ("last", [3.0, 2.0], [9.0, 7.0]),
        ("mean", [2.0, 2.0], [6.0, 7.0]),
        ("padded_mean", [13 / 3, 14 / 3], [13 / 3, 14 / 3]),
    ],
)
def test_pooling_on_either_side_of_padding(pooling, right, left):
    for mask, expected in (([[1, 1, 0], [1, 0, 0]], right), ([[0, 1, 1], [0, 0, 1]], left)):
        found = pool_hidden_states(HIDDEN, torch.tensor(mask), pooling)
        assert found.shape == (2, 2, 1)
        assert found[:, 0, 0].tolist() == pytest.approx(expected)
        assert found[:, 1, 0].tolist() == pytest.approx([10 * value for value in expected])
