"""How far the adapter of one request changes what the model says to the prompts of another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.data.encoding import TokenBatch, collate, encode_prompts
from o3_lightning.models.base import BaseModel

__all__ = ["attached", "logit_interference"]


@contextmanager
def attached(model: nn.Module, history: AdapterHistory, place: int, weight: float = 1.0) -> Iterator[None]:
    """Adds one adapter of a history to a model's linear layers, through hooks that are always removed.

    Args:
        model: the base model.
        history: adapters in order.
        place: which one, from 0.
        weight: factor of its update.
    """
    modules = dict(model.named_modules())
    handles = []
    try:
        for path, stacked in history.inputs.items():
            module = modules[path]
            factor = next(module.parameters())
            a = stacked[place].to(factor.device)
            b = history.outputs[path][place].to(factor.device) * (
                weight * history.scales[place].get(path, 0.0)
            )
            handles.append(module.register_forward_hook(make_hook(a, b)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def make_hook(a: Tensor, b: Tensor) -> Any:
    """Returns a hook that adds x A^T B^T, with B given transposed."""

    def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + ((inputs[0].to(a.dtype) @ a.T) @ b).to(output.dtype)

    return add


@torch.no_grad()
def logit_interference(
    base: BaseModel,
    history: AdapterHistory,
    prompts: Mapping[str, Sequence[str]],
    *,
    max_tokens: int = 0,
    batch_size: int = 32,
) -> list[list[float]]:
    """Returns how far each adapter at full weight moves the next token at each request's prompts.

    Args:
        base: the base model.
        history: adapters in order.
        prompts: per request id, of the history's requests, some of its prompts.
        max_tokens: longest prompt; 0 takes the model's context.
        batch_size: prompts at a time.

    Returns:
        [i][j] = mean KL(base || base with adapter j) in nats at the last token of request i's prompts.
    """
    matrix = []
    for id in history.ids:
        ids = encode_prompts(base.tokenizer, base.template, prompts[id], max_tokens or base.context_tokens)
        pad = base.tokenizer.pad_token_id
        starts = range(0, len(ids), batch_size)
        batches = [collate([{"input_ids": r} for r in ids[s : s + batch_size]], pad) for s in starts]
        before = last_log_probabilities(base, batches)
        row = []
        for place in range(len(history)):
            with attached(base.model, history, place):
                after = last_log_probabilities(base, batches)
            row.append(float((before.exp() * (before - after)).sum(-1).mean()))
        matrix.append(row)
    return matrix


def last_log_probabilities(base: BaseModel, batches: Sequence[TokenBatch]) -> Tensor:
    """Returns the log-probabilities of the token after each prompt, [B, V] float32."""
    device, rows = next(base.model.parameters()).device, []
    for batch in (batch.to(device) for batch in batches):
        logits = base.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        ).logits
        last = batch.attention_mask.sum(-1) - 1
        rows.append(logits[torch.arange(len(last), device=device), last].float().log_softmax(-1).cpu())
    return torch.cat(rows)
