"""Means over a batch that several processes hold in parts: each divides by what all of them have.

Shapes: B rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch.distributed as dist
from torch import Tensor

__all__ = ["counted_together", "mean_of_rows", "shared_count"]

IGNORED = -100
TOGETHER: ContextVar[bool] = ContextVar("TOGETHER", default=False)


@contextmanager
def counted_together(processes: int) -> Iterator[None]:
    """Within, every mean divides by the count over all processes, which all have to compute the same means.

    Data-parallel training averages the processes' gradients; a sum over a process's rows, divided by the
    average count a process has, then gives the gradient of the mean over the whole batch.

    Args:
        processes: how many hold a part; 1 changes nothing.
    """
    token = TOGETHER.set(processes > 1)
    try:
        yield
    finally:
        TOGETHER.reset(token)


def shared_count(count: Tensor) -> Tensor:
    """Returns a sum's divisor: the count, at least 1, averaged over the processes that train together."""
    if not TOGETHER.get():
        return count.clamp(min=1)
    total = count.detach().float()
    dist.all_reduce(total)
    return total.clamp(min=1) / dist.get_world_size()


def mean_of_rows(values: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean of values [B] over the rows that have a label; [B, T] labels.

    A row without any label stands in where a process has no row of a batch.
    """
    present = (labels != IGNORED).any(-1)
    return values.masked_fill(~present, 0).sum() / shared_count(present.sum())
