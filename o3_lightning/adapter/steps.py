"""Optimizer steps of several batches: what the whole step holds, told to each of its batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from o3_lightning.objectives.reductions import StepCounts, count_labels

__all__ = ["STEP", "Batches", "StepLoader", "step_counts", "step_share"]

STEP = "step"  # stands beside the views of a batch
BATCHES = "batches"
Fields = dict[str, dict[str, Tensor]]


class StepLoader:
    """The batches of a loader, each with the counts of the optimizer step that it is a part of.

    A trainer that accumulates gradients divides every batch's loss by the number of batches that a step has,
    also in the last step of an epoch, which may have fewer.

    Args:
        loader: of the fields of a `TokenBatch` for each view.
        trainer: says how many batches a step has.
    """

    def __init__(self, loader: DataLoader[int], trainer: Trainer) -> None:
        self.loader, self.trainer = loader, trainer

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Fields]:
        batches, most = iter(self.loader), self.trainer.accumulate_grad_batches
        while step := list(islice(batches, most)):
            counts = {
                view: torch.stack([count_labels(batch[view]["labels"]) for batch in step]).sum(0)
                for view in step[0]
            }
            for batch in step:  # whole numbers: a trainer of half precision would round others
                yield {**batch, STEP: {**counts, BATCHES: torch.tensor([len(step), most])}}


Batches = DataLoader[int] | StepLoader


def step_counts(fields: Mapping[str, Mapping[str, Tensor]]) -> list[StepCounts]:
    """Returns the counts of each view of a batch from a `StepLoader`; none of any other loader's."""
    step = fields.get(STEP, {})
    return [
        StepCounts(tensors["labels"], step[view] / step[BATCHES][1])
        for view, tensors in fields.items()
        if view in step
    ]


def step_share(fields: Mapping[str, Mapping[str, Tensor]]) -> Tensor | float:
    """Returns the factor of what a step has once, so that accumulation leaves it whole."""
    step = fields.get(STEP)
    return 1.0 if step is None else step[BATCHES][1] / step[BATCHES][0]
