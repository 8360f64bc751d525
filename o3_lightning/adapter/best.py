"""Keeping the best state of a fit: what is forgotten and kept is measured after each epoch."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from o3_lightning.adapter.module import AdapterModule, copy_into
from o3_lightning.common.plain import evenly_spaced
from o3_lightning.data.encoding import collate, encode_pairs
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.models.base import BaseModel
from o3_lightning.objectives.tokens import row_nll

ROWS = 64  # most rows of the forget set, and of the retained rows, that are measured


class BestKeeper(Callback):
    """Keeps the factors of the epoch with the highest (1 - p_forget) * min(1, p_retain / p_retain before).

    p is the mean probability per token of the true answers, exp(-mean NLL); `forget` and `retain` are rows
    that training reads anyway.

    Attributes:
        epoch: the best one, from 1; 0 before the first.
        score: its score, in [0, 1].
    """

    def __init__(
        self,
        base: BaseModel,
        forget: Sequence[QuestionAnswer],
        retain: Sequence[QuestionAnswer],
        max_tokens: int,
        batch_size: int,
    ) -> None:
        self.splits = []
        for rows in (forget, retain):
            chosen = evenly_spaced(rows, ROWS)
            prompts, answers = [row.prompt for row in chosen], [row.answer for row in chosen]
            self.splits.append(encode_pairs(base.tokenizer, base.template, prompts, answers, max_tokens))
        self.pad_id, self.batch_size = base.tokenizer.pad_token_id, batch_size
        self.epoch, self.score, self.before = 0, -1.0, 1.0
        self.state: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Measures the retained rows before the first step."""
        self.before = self.measure(module)[1]

    def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
        """Keeps the factors if they are the best so far."""
        forget, retain = self.measure(module)
        score = (1 - forget) * min(1.0, retain / self.before)
        if score > self.score:
            self.epoch, self.score = trainer.current_epoch + 1, score
            self.state = [factor.detach().clone() for factor in module.trained]

    def restore(self, module: AdapterModule) -> None:
        """Puts the best state back."""
        copy_into(module.trained, self.state)

    @torch.no_grad()
    def measure(self, module: AdapterModule) -> tuple[float, float]:
        """Returns the mean probabilities of forget rows and retained rows."""
        means = []
        for examples in self.splits:
            losses = []
            for start in range(0, len(examples), self.batch_size):
                batch = collate(examples[start : start + self.batch_size], self.pad_id).to(module.device)
                logits, _ = module.run(vars(batch), hidden=False)
                losses.append(row_nll(logits, batch.labels, per_token=True))
            means.append(float(torch.cat(losses).neg().exp().mean()))
        return means[0], means[1]
