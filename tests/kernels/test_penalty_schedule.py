"""The order of the penalty's items: everything once, no gradient before its overlaps, as late as asked."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from o3_kernels.ops.orthogonality_penalty.schedule import ModuleShape, PenaltyPlan, plan_schedule

CPU = torch.device("cpu")
SIZES = st.tuples(st.integers(1, 3), st.integers(0, 70), st.integers(1, 90))


def plan(lag_bytes):
    return PenaltyPlan(16, 16, 16, 32, 16, 32, lag_bytes, 4, 3, 2)


@settings(max_examples=50, deadline=None)
@given(shapes=st.lists(SIZES, min_size=1, max_size=6), lag_bytes=st.sampled_from([0, 1000, 1 << 40]))
def test_every_item_comes_once_and_after_what_it_waits_for(shapes, lag_bytes):
    shapes = tuple(ModuleShape(*shape) for shape in shapes)
    schedule = plan_schedule(shapes, plan(lag_bytes), 4, True, CPU)
    items = [tuple(item) for item in schedule.items.tolist()]
    assert len(set(items)) == len(items)
    for module, (_, N, D, _) in enumerate(shapes):
        blocks, parts, columns = -(-N // 16), -(-D // 32), -(-D // 32)
        overlaps = [place for place, item in enumerate(items) if item[0] == module]
        gradients = [place for place, item in enumerate(items) if item[0] == -1 - module]
        assert len(overlaps) == blocks * parts
        assert len(gradients) == columns
        assert max(overlaps, default=-1) < min(gradients)


def test_results_lie_one_behind_the_other():
    shapes = (ModuleShape(2, 5, 40), ModuleShape(3, 20, 70))
    schedule = plan_schedule(shapes, plan(0), 4, True, CPU)
    # overlaps are padded to blocks of 16 rows and 16 ranks
    assert schedule.table.tolist() == [[2, 5, 40, 0, 0, 0, 0, 0, -1], [3, 20, 70, 0, 256, 80, 512, 1, -1]]
    assert schedule[3:] == (768, 290, 2048, 3)


def test_large_modules_are_cut_into_chunks_of_whole_blocks_that_share_a_gradient():
    shapes = (ModuleShape(2, 5, 40), ModuleShape(3, 70, 70), ModuleShape(1, 0, 8))
    cut = plan(0)._replace(chunk_bytes=2 * 16 * 70 * 4)
    schedule = plan_schedule(shapes, cut, 4, True, CPU)
    assert schedule.chunks == ((0, 0), (1, 0), (1, 32), (1, 64), (2, 0))
    rows, gradients, before = (schedule.table[:, column].tolist() for column in (1, 5, 8))
    assert rows == [5, 32, 32, 6, 0]
    assert gradients == [0, 80, 80, 80, 290]
    assert before == [-1, -1, 1, 2, -1]
    assert schedule.gradient == 298


@pytest.mark.parametrize(("lag_modules", "between"), [(0, 0), (2, 1), (9, 3)])
def test_gradient_follows_after_the_lag(lag_modules, between):
    schedule = plan_schedule((ModuleShape(1, 16, 32),) * 4, plan(lag_modules * 16 * 32 * 4), 4, True, CPU)
    order = schedule.items[:, 0].tolist()
    assert order.index(-1) - order.index(0) - 1 == between


def test_value_alone_needs_no_gradient_items():
    schedule = plan_schedule((ModuleShape(1, 16, 32),) * 4, plan(0), 4, False, CPU)
    assert schedule.items[:, 0].tolist() == [0, 1, 2, 3]
