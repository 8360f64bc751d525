"""Attacks on the model instead of the prompt: fewer bits, and fine-tuning on a part of what was forgotten.

Each is a context: afterwards the model is what it was.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.adapter.injection import injected
from o3_lightning.data.encoding import collate, encode_pairs
from o3_lightning.errors import InputError
from o3_lightning.evaluation.config import RobustnessConfig
from o3_lightning.gating.model import GatedModel
from o3_lightning.requests import QuestionAnswer

__all__ = ["quantised", "relearned", "round_weight"]

logger = logging.getLogger(__name__)


@contextmanager
def quantised(model: GatedModel, bits: int) -> Iterator[None]:
    """Within, the base model's linear weights hold only `bits` bits; the adapters keep theirs.

    A simulation: symmetric rounding to the nearest, one scale an output channel, the output layer and what is
    not `nn.Linear` left as they are. For real 4-bit weights evaluate with `--base.quantise 4bit`.

    Args:
        model: its base model is rounded, and given its weights back afterwards.
        bits: 2 to 16.
    """
    base: Any = model.base.model
    head = base.get_output_embeddings()
    layers = [part for part in base.modules() if isinstance(part, nn.Linear) and part is not head]
    originals = [layer.weight.data for layer in layers]
    try:
        for layer in layers:
            layer.weight.data = round_weight(layer.weight.data, bits)
        yield
    finally:
        for layer, weight in zip(layers, originals, strict=True):
            layer.weight.data = weight


def round_weight(weight: Tensor, bits: int) -> Tensor:
    """Returns a weight [O,D] rounded to `2^bits - 1` levels a row, symmetric about 0.

    Example:
        >>> [round(value, 4) for value in round_weight(torch.tensor([[1.0, 0.4, -0.1]]), 2)[0].tolist()]
        [1.0, 0.0, 0.0]
    """
    levels = 2 ** (bits - 1) - 1
    scale = weight.float().abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / levels
    rounded: Tensor = (weight.float() / scale).round().clamp(-levels, levels) * scale
    return rounded.to(weight.dtype)


@contextmanager
def relearned(
    model: GatedModel, request: str, rows: Sequence[QuestionAnswer], config: RobustnessConfig, seed: int
) -> Iterator[None]:
    """Within `model.disabled()`, the model is what an attacker makes of the unlearned weights.

    The request's adapter is folded into the base weights, so that there is no gate to pass, and a LoRA of the
    attacker's own is trained on some forget rows and their true answers.

    Args:
        model: afterwards as before, to the last bit.
        request: whose adapter is attacked; a request without one leaves the base model as it is.
        rows: what the attacker knows.
        config: of the attacker's training.
        seed: of its LoRA and its order of rows.

    Source:
        Relearning as in O3's evaluation and in Hu et al. 2024, "Jogging the memory of unlearned models".
    """
    settings = AdapterConfig(rank=config.relearn_rank, alpha=2.0 * config.relearn_rank)
    with merged(model, request), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with injected(model.base.model, settings, model.base.id) as wrapped:
            fine_tune(model, wrapped, rows, config)
            yield


@contextmanager
def merged(model: GatedModel, request: str) -> Iterator[None]:
    """Folds an adapter in and takes it out again."""
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


def fine_tune(
    model: GatedModel, wrapped: nn.Module, rows: Sequence[QuestionAnswer], config: RobustnessConfig
) -> None:
    """Plain supervised training on the rows' answers, at a constant rate."""
    base = model.base
    prompts, answers = [row.prompt for row in rows], [row.answer for row in rows]
    examples = encode_pairs(base.tokenizer, base.template, prompts, answers, base.context_tokens)
    trained = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.relearn_learning_rate, weight_decay=0.0)
    wrapped.train()
    with torch.enable_grad():
        for _ in range(config.relearn_epochs):
            order = torch.randperm(len(examples)).tolist()
            for start in range(0, len(order), config.relearn_batch_size):
                chosen = order[start : start + config.relearn_batch_size]
                batch = collate([examples[row] for row in chosen], model.tokens.pad_id).to(model.device)
                inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
                loss = wrapped(**inputs, labels=batch.labels).loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    wrapped.eval()
