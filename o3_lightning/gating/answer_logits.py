"""The logits of a batch's answers alone, a few tokens at a time.

A vocabulary of 128k makes the logits of a whole batch gigabytes, of which scoring needs the answers' rows,
and each of them for a moment. So the model runs without its output layer, which then sees the answers'
hidden states in small parts.

Shapes: B rows, T tokens, N answer tokens of a batch, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from o3_lightning.data.encoding import IGNORED, TokenBatch
from o3_lightning.gating.calls import GatedCalls
from o3_lightning.gating.plan import Plan
from o3_lightning.gating.tokens import before_labels

PART_TOKENS = 256  # rows of the vocabulary at once: 256 x 128k in float32 are 131 MB
PLAIN_HEADS: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@torch.no_grad()
def answer_logits(
    model: GatedCalls, batch: TokenBatch, weights: Tensor | Plan | None, part_tokens: int = PART_TOKENS
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the logits that predict a batch's answer tokens, and these tokens, row after row.

    Args:
        model: each row runs at its own weights; refused rows give the refusal's logits.
        batch: prompts and answers, padded on the right.
        weights: [B,K]; None asks the detectors about the prompts' tokens, or is the base model within
            `model.disabled()`.
        part_tokens: tokens at a time, 1 or more; it changes memory, not values.

    Yields:
        Logits [n,V] in the model's type and answer tokens [n], n <= `part_tokens`; N in all.
    """
    labelled = batch.labels[:, 1:] != IGNORED
    targets = batch.labels[:, 1:][labelled]
    rows = labelled.nonzero()[:, 0]
    steps = (labelled.cumsum(1) - 1)[labelled]
    refused, source, head = run_model(model, batch, weights, labelled)
    refused = refused.to(rows.device)[rows]
    for part in torch.split(torch.arange(len(targets), device=targets.device), part_tokens):
        logits = source[part] if head is None else head(source[part])
        if bool(refused[part].any()):
            logits = refuse_tokens(model, logits, refused[part], steps[part])
        yield logits, targets[part]


def run_model(
    model: GatedCalls, batch: TokenBatch, weights: Tensor | Plan | None, labelled: Tensor
) -> tuple[Tensor, Tensor, nn.Module | None]:
    """Returns the refused rows [B], and hidden states [N,D] with their head, or logits [N,V] and None."""
    seen = batch.attention_mask * before_labels(batch.labels)
    base: Any = model.base.model
    plain = has_plain_head(base)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    with model.acting(weights, batch.input_ids, seen) as refused:
        head = base.get_output_embeddings()
        if plain and isinstance(head, nn.Linear):  # an adapted head is no such layer while the gate is open
            return refused, base.base_model(**inputs).last_hidden_state[:, :-1][labelled], head
        return refused, base(**inputs).logits[:, :-1][labelled], None


def has_plain_head(base: Any) -> bool:
    """Whether the logits are the output layer of the last hidden states and nothing else.

    Some models scale or bend them (Gemma 2, Cohere); two tokens tell.
    """
    head = base.get_output_embeddings()
    if head is None or base.base_model is base or not isinstance(head, nn.Linear):
        return False
    if base not in PLAIN_HEADS:
        ids = torch.tensor([[1, 2]], device=base.device)
        ours = head(base.base_model(input_ids=ids).last_hidden_state)
        PLAIN_HEADS[base] = torch.equal(ours, base(input_ids=ids).logits)
    return PLAIN_HEADS[base]


def refuse_tokens(model: GatedCalls, logits: Tensor, refused: Tensor, steps: Tensor) -> Tensor:
    """Returns logits [n,V] whose refused tokens [n] predict the refusal's token at their step [n]."""
    # each token is a row of its own here: `starts` is where an answer that is at this step began
    return model.refuse(logits[:, None], refused, 1 - steps)[:, 0]
