"""Means over an optimizer step that several processes or several batches hold in parts.

Each part divides by what all of them have, so that a token (or a row) counts the same wherever it lies.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["StepCounts", "count_labels", "counted_together", "mean_of_rows", "mean_of_tokens"]

IGNORED = -100
TOKENS, ROWS = range(2)  # places among the counts


@dataclass(frozen=True)
class StepCounts:
    """How much of one view a step holds, where it has several batches.

    Args:
        labels: [B, T] of this batch; the very tensor that an objective is given.
        counts: labelled tokens and rows with any, [2] float, on average over as many batches as a step has.
    """

    labels: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Parts:
    """Who counts together: processes, and batches of a step."""

    processes: bool = False
    views: Sequence[StepCounts] = ()


PARTS: ContextVar[Parts] = ContextVar("PARTS", default=Parts())  # noqa: B039  # it is frozen


@contextmanager
def counted_together(processes: int, views: Sequence[StepCounts] = ()) -> Iterator[None]:
    """Within, every mean divides by the count over all parts of a step.

    Data-parallel training averages the gradients of processes, and accumulation those of a step's batches; a
    sum over a part's rows, divided by the average count a part has, then gives the gradient of the mean over
    the whole step.

    Args:
        processes: how many hold a part, all of which have to compute the same means; 1 changes nothing.
        views: of a step of several batches; none where a batch is a step.
    """
    token = PARTS.set(Parts(processes > 1, tuple(views)))
    try:
        yield
    finally:
        PARTS.reset(token)


def count_labels(labels: Tensor) -> Tensor:
    """Returns how many tokens of labels [B, T] are labelled, and how many rows have any, [2]."""
    labelled = labels != IGNORED
    return torch.stack([labelled.sum(), labelled.any(-1).sum()])


def divisor(labels: Tensor, own: Tensor, place: int) -> Tensor:
    """Returns a sum's divisor: the count a part has on average, at least 1 in all; `own` is this part's."""
    parts = PARTS.get()
    known = next((view.counts[place] for view in parts.views if view.labels is labels), None)
    if not parts.processes:
        return own.clamp(min=1) if known is None else known
    total = (own if known is None else known).detach().float()
    dist.all_reduce(total)
    return (total.clamp(min=1) if known is None else total) / dist.get_world_size()


def mean_of_tokens(values: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean of values over the labelled tokens, 0 where there are none.

    Args:
        values: [B, N], of the last N tokens of each row.
        labels: [B, T], T >= N.
    """
    mask = labels[:, labels.shape[1] - values.shape[1] :] != IGNORED
    return values.masked_fill(~mask, 0).sum() / divisor(labels, mask.sum(), TOKENS)


def mean_of_rows(values: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean of values [B] over the rows that have a label; [B, T] labels.

    A row without any label stands in where a process has no row of a batch.
    """
    present = (labels != IGNORED).any(-1)
    return values.masked_fill(~present, 0).sum() / divisor(labels, present.sum(), ROWS)
