"""Batches of a forget set: the same rows in every view an objective reads, in an order set by the seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from o3_lightning.data.encoding import IGNORED, Example, collate, encode_pairs
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.models.base import BaseModel
from o3_lightning.objectives.config import ObjectiveConfig
from o3_lightning.objectives.targets import Pairs, build_retain_texts, build_texts

__all__ = ["build_loader"]

Views = dict[str, list[Example]]


def build_loader(
    base: BaseModel,
    rows: Sequence[QuestionAnswer],
    retain: Sequence[QuestionAnswer] | None,
    objective: ObjectiveConfig,
    *,
    batch_size: int,
    max_tokens: int,
    seed: int,
    share: tuple[int, int] = (0, 1),
) -> DataLoader[int]:
    """Returns a loader of the fields of a `TokenBatch` for each view; the seed alone decides the order.

    Args:
        base: its tokenizer and template encode the texts.
        rows: the forget set.
        retain: retained rows, read only if the objective asks for them; each batch gets as many of them as
            it has forget rows, drawn without replacement until all were seen.
        objective: what the views are.
        batch_size: forget rows a batch.
        max_tokens: longest prompt and answer together.
        seed: of the texts drawn and of the order.
        share: this process's number and how many there are; each gets its rows of the same batches, in the
            same order.

    Raises:
        InputError: a prompt leaves no room for an answer.
    """
    forget = encode(base, build_texts(objective, rows, seed), max_tokens)
    kept: Views = {}
    if objective.needs_retained_data and retain is not None:
        kept = encode(base, build_retain_texts(objective, list(retain), seed), max_tokens)
    collator = Collator(forget, kept, base.tokenizer.pad_token_id, seed, share)
    return DataLoader(
        range(len(rows)),  # type: ignore[arg-type]
        batch_size=batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
        collate_fn=collator,
    )


def encode(base: BaseModel, texts: Mapping[str, Pairs], max_tokens: int) -> Views:
    """Returns the examples of each view."""
    return {
        view: encode_pairs(base.tokenizer, base.template, prompts, answers, max_tokens)
        for view, (prompts, answers) in texts.items()
    }


class Collator:
    """Turns row numbers into one padded batch a view, retained rows drawn beside them.

    Args:
        forget: examples of each forget view.
        retain: examples of each retain view; may be empty.
        pad_id: fills the rest of a row.
        seed: of the retained rows' order.
        share: this process's number and how many there are.
    """

    def __init__(
        self, forget: Views, retain: Views, pad_id: int, seed: int, share: tuple[int, int] = (0, 1)
    ) -> None:
        self.forget, self.retain, self.pad_id = forget, retain, pad_id
        self.generator = torch.Generator().manual_seed(seed)
        self.waiting: list[int] = []
        self.share = share

    def __call__(self, indices: Sequence[int]) -> dict[str, dict[str, Tensor]]:
        """Returns view -> the fields of a `TokenBatch`, as plain dictionaries for the trainer to move."""
        batch = {view: self.pad(examples, indices) for view, examples in self.forget.items()}
        if self.retain:
            drawn = self.draw(len(indices))
            batch |= {view: self.pad(examples, drawn) for view, examples in self.retain.items()}
        return batch

    def pad(self, examples: list[Example], indices: Sequence[int]) -> dict[str, Tensor]:
        """Returns this process's share of some examples, padded as the whole batch is."""
        whole = dict(vars(collate([examples[index] for index in indices], self.pad_id)))
        first, processes = self.share
        if first < len(indices):
            return {name: tensor[first::processes] for name, tensor in whole.items()}
        idle = {name: tensor[:1] for name, tensor in whole.items()}  # no row is left: one that counts nothing
        return {**idle, "labels": torch.full_like(idle["labels"], IGNORED)}

    def draw(self, count: int) -> list[int]:
        """Returns the next retained rows of an order that is drawn anew when it is used up."""
        total = len(next(iter(self.retain.values())))
        while len(self.waiting) < count:
            self.waiting += torch.randperm(total, generator=self.generator).tolist()
        drawn, self.waiting = self.waiting[:count], self.waiting[count:]
        return drawn
