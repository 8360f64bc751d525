"""Helpers for plain values."""

from o3_lightning.common.plain import evenly_spaced


def test_items_are_evenly_spaced_over_all():
    assert evenly_spaced(range(3), 10) == (0, 1, 2)
    assert evenly_spaced(range(100), 10) == tuple(range(0, 100, 10))
    assert evenly_spaced([1, 2], 0) == ()
