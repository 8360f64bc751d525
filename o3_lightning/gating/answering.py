"""Answering and scoring many prompts in batches of similar length.

Shapes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from o3_lightning.data.encoding import IGNORED, Example, collate, encode_pairs
from o3_lightning.gating.routing import Prompt
from o3_lightning.gating.tokens import batches

if TYPE_CHECKING:
    from o3_lightning.gating.model import GatedModel

__all__ = ["answer_prompts", "score_answers"]


def answer_prompts(
    model: GatedModel, prompts: Sequence[Prompt], weights: Tensor | None, max_new_tokens: int, batch_size: int
) -> list[str]:
    """Returns the greedy answer to each prompt, in order; see `GatedModel.answer`."""
    rows = [model.tokens.encode(prompt) for prompt in prompts]
    answers = [""] * len(rows)
    for chosen in batches([len(row) for row in rows], batch_size):
        ids, mask = model.tokens.pad([rows[row] for row in chosen])
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            weights=None if weights is None else weights[chosen],
            max_new_tokens=min(max_new_tokens, model.base.context_tokens - ids.shape[1]),
            do_sample=False,
            num_beams=1,
            pad_token_id=model.tokens.pad_id,
        )
        texts = model.tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
        for row, text in zip(chosen, texts, strict=True):
            answers[row] = text.strip()
    return answers


def score_answers(
    model: GatedModel, prompts: Sequence[str], answers: Sequence[str], weights: Tensor | None, batch_size: int
) -> list[Tensor]:
    """Returns the log-probability of each answer's tokens, in order; see `GatedModel.score`."""
    base = model.base
    examples: list[Example] = encode_pairs(
        base.tokenizer, base.template, prompts, answers, base.context_tokens
    )
    scores = [torch.empty(0)] * len(examples)
    for chosen in batches([len(example["input_ids"]) for example in examples], batch_size):
        batch = collate([examples[row] for row in chosen], model.tokens.pad_id).to(model.device)
        given = None if weights is None else weights[chosen]
        logits = model(batch.input_ids, batch.attention_mask, batch.labels, given).logits
        for place, row in enumerate(chosen):
            labelled = batch.labels[place, 1:] != IGNORED
            target = batch.labels[place, 1:][labelled]
            likely = logits[place, :-1][labelled].float().log_softmax(-1)
            scores[row] = likely.gather(1, target[:, None]).squeeze(1).cpu()
    return scores
