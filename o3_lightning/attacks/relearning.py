"""Relearning attack: fine-tunes on a part of the forget set and measures whether the rest comes back.

At too high a learning rate the attacked model answers everything with the trained facts, and a small leak
proves nothing. The attacker therefore tries several rates, measures during training, mixes in rows about
other things, and reports the accuracy on such rows.
"""

import logging
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.adapter.injection import injected
from o3_lightning.attacks.config import RobustnessConfig
from o3_lightning.common.errors import InputError
from o3_lightning.data.encoding import collate, encode_pairs
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.gating.model import GatedModel

logger = logging.getLogger(__name__)


def known_rows(request: UnlearningRequest, count: int, seed: int) -> list[QuestionAnswer]:
    """Returns the rows that an attacker knows: all rows of one fact, then of the next, facts in random order.

    Rows with the same answer state the same fact; `count` is the largest number of rows.
    """
    facts: dict[str, list[QuestionAnswer]] = {}
    for row in request.rows:
        facts.setdefault(row.answer, []).append(row)
    drawn = list(facts.values())
    random.Random(seed).shuffle(drawn)  # noqa: S311  # a game of dice, not a secret
    return [row for fact in drawn for row in fact][:count]


@dataclass
class Attacker:
    """Continues training at every call; in between, the base model computes with the attacker's weights."""

    model: GatedModel
    wrapped: nn.Module
    examples: Sequence[Any]
    optimizer: torch.optim.Optimizer
    batch_size: int
    epochs: int = 0

    def train(self, epochs: int) -> float:
        """Trains for some more epochs; returns the mean loss of the last one, in nats per token."""
        losses: list[float] = []
        self.wrapped.train()
        with torch.enable_grad():
            for _ in range(epochs):
                order = torch.randperm(len(self.examples)).tolist()
                starts = range(0, len(order), self.batch_size)
                losses = [self.step(order[start : start + self.batch_size]) for start in starts]
        self.wrapped.eval()
        self.epochs += epochs
        return sum(losses) / len(losses)

    def step(self, chosen: Sequence[int]) -> float:
        """Takes one optimizer step on some rows; returns their loss before the step."""
        batch = collate([self.examples[row] for row in chosen], self.model.tokens.pad_id).to(
            self.model.device
        )
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        loss = self.wrapped(**inputs, labels=batch.labels).loss
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


@contextmanager
def relearning(
    model: GatedModel,
    request: str,
    rows: Sequence[QuestionAnswer],
    config: RobustnessConfig,
    learning_rate: float,
    seed: int,
) -> Iterator[Attacker]:
    """Within the context, the model at gate weights of zero is the attacker's.

    The request's adapter is merged into the base weights, which removes the gate, and the attacker's own LoRA
    is trained on rows and their true answers at a constant learning rate.

    Args:
        model: restored bit for bit afterwards.
        request: id of the attacked request; without an adapter the base model is attacked as it is.
        rows: training rows.
        config: settings of the attacker's training.
        learning_rate: of AdamW.
        seed: of its LoRA and its order of rows.

    Source:
        Relearning as in O3's evaluation and in Hu et al. 2024, "Jogging the memory of unlearned models".
    """
    settings = AdapterConfig(rank=config.relearn_rank, alpha=2.0 * config.relearn_rank)
    base = model.base
    prompts, answers = [row.prompt for row in rows], [row.answer for row in rows]
    examples = encode_pairs(base.tokenizer, base.template, prompts, answers, base.context_tokens)
    with merged(model, request), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with injected(base.model, settings, base.id) as wrapped:
            trained = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
            optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
            yield Attacker(model, wrapped, examples, optimizer, config.relearn_batch_size)


@contextmanager
def merged(model: GatedModel, request: str) -> Iterator[None]:
    """Merges an adapter into the base weights and restores them afterwards."""
    folded = True
    try:
        model.merge(request)
    except InputError as error:
        logger.info("  %s is attacked without its adapter: %s", request, error)
        folded = False
    try:
        yield
    finally:
        if folded:
            model.unmerge(request)
