"""Batches of a forget set: the same rows in every view that an objective reads.

Training may split an optimizer step over processes and micro-batches; every token (or row) of the step counts
alike, because means divide by the counts of the whole step (`View.counts`).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

import torch
import torch.distributed as dist
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from o3_lightning.data.encoding import IGNORED, Example, collate, encode_pairs
from o3_lightning.models.base import BaseModel
from o3_lightning.objectives.tokens import count_labels

Views = dict[str, list[Example]]
Fields = dict[str, dict[str, Tensor]]  # view -> fields of a `TokenBatch`, and `COUNTS` of a `StepLoader`
COUNTS = "counts"  # [3] int64: labelled tokens and rows of the whole step, and its batches


def encode(
    base: BaseModel,
    texts: Mapping[str, tuple[list[str], list[str]]],
    max_tokens: int,
    *,
    label_prompts: bool = False,
) -> Views:
    """Returns the examples of each view."""
    encode_view = partial(encode_pairs, base.tokenizer, base.template, label_prompts=label_prompts)
    return {view: encode_view(prompts, answers, max_tokens) for view, (prompts, answers) in texts.items()}


class Collator:
    """Turns row numbers into one padded batch for each view, and draws as many retained rows."""

    def __init__(self, forget: Views, retain: Views, pad_id: int, seed: int, share: tuple[int, int]) -> None:
        self.forget, self.retain, self.pad_id, self.share = forget, retain, pad_id, share
        self.generator = torch.Generator().manual_seed(seed)
        self.waiting: list[int] = []

    def __call__(self, indices: Sequence[int]) -> Fields:
        """Returns the batch as plain dictionaries, which the trainer moves to its device."""
        batch = {view: self.pad(examples, indices) for view, examples in self.forget.items()}
        if self.retain:
            drawn = self.draw(len(indices))
            batch |= {view: self.pad(examples, drawn) for view, examples in self.retain.items()}
        return batch

    def pad(self, examples: list[Example], indices: Sequence[int]) -> dict[str, Tensor]:
        """Returns this process's rows of some examples, padded to the length of the whole batch."""
        whole = dict(vars(collate([examples[index] for index in indices], self.pad_id)))
        rank, processes = self.share
        if rank < len(indices):
            return {name: tensor[rank::processes] for name, tensor in whole.items()}
        idle = {name: tensor[:1] for name, tensor in whole.items()}  # no row is left: one without any label
        return {**idle, "labels": torch.full_like(idle["labels"], IGNORED)}

    def draw(self, count: int) -> list[int]:
        """Returns the next retained rows of a random order, which is drawn again when it is used up."""
        total = len(next(iter(self.retain.values())))
        while len(self.waiting) < count:
            self.waiting += torch.randperm(total, generator=self.generator).tolist()
        drawn, self.waiting = self.waiting[:count], self.waiting[count:]
        return drawn


class StepLoader:
    """Adds to every batch of a loader the counts of its optimizer step, for gradient accumulation."""

    def __init__(self, loader: DataLoader[int], trainer: Trainer) -> None:
        self.loader, self.trainer = loader, trainer

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Fields]:
        batches, most = iter(self.loader), self.trainer.accumulate_grad_batches
        while step := list(islice(batches, most)):
            counts = {}
            for view in step[0]:  # whole numbers: a trainer of half precision would round others
                labels = torch.stack([count_labels(batch[view]["labels"]) for batch in step]).sum(0)
                counts[view] = torch.tensor([*labels.tolist(), len(step)])
            for batch in step:
                yield {view: {**tensors, COUNTS: counts[view]} for view, tensors in batch.items()}


Batches = DataLoader[int] | StepLoader


def step_counts(fields: Mapping[str, Mapping[str, Tensor]], trainer: Trainer) -> dict[str, Tensor]:
    """Returns `View.counts` of each view, after one reduction over the processes.

    It is empty if the batch is the whole step. Data-parallel training averages the gradients of processes,
    and accumulation those of micro-batches; a part's sum, divided by the average count of a part, then gives
    the gradient of the mean over the whole step.
    """
    processes, batches = trainer.world_size, step_batches(fields)
    if batches == processes == 1:
        return {}
    own = [part[COUNTS][:2] if batches > 1 else count_labels(part["labels"]) for part in fields.values()]
    counts = torch.stack(own).float() / batches
    if processes > 1:
        dist.all_reduce(counts)
    counts = counts.clamp(min=1 / batches) / processes
    return dict(zip(fields, counts, strict=True))


def step_batches(fields: Mapping[str, Mapping[str, Tensor]]) -> int:
    """Returns the number of batches of a batch's optimizer step; an epoch's last step may have fewer."""
    counts = next(iter(fields.values())).get(COUNTS)
    return 1 if counts is None else int(counts[2])
