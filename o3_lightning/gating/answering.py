"""Answering and scoring many prompts in batches of similar length.

Shapes: B rows, T tokens, N answer tokens of a batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from o3_lightning.data.encoding import IGNORED, Example, collate, encode_pairs
from o3_lightning.data.prompts import Prompt
from o3_lightning.gating.answer_logits import answer_logits
from o3_lightning.gating.calls import GatedCalls
from o3_lightning.gating.plan import Plan
from o3_lightning.gating.tokens import batches


def answer_prompts(
    model: GatedCalls,
    prompts: Sequence[Prompt],
    weights: Tensor | Plan | None,
    max_new_tokens: int,
    batch_size: int,
) -> list[str]:
    """Returns the greedy answer to each prompt, in order; see `GatedModel.answer`."""
    rows = [model.tokens.encode(prompt) for prompt in prompts]
    answers = generate_tokens(model, rows, weights, max_new_tokens, batch_size)
    return [model.base.read_answer(answer) for answer in answers]


def generate_tokens(
    model: GatedCalls,
    rows: Sequence[list[int]],
    weights: Tensor | Plan | None,
    max_new_tokens: int,
    batch_size: int,
) -> list[list[int]]:
    """Returns the tokens of the greedy answer to each prompt up to its first end token, in order.

    Special tokens are left out.

    Args:
        model: the gated model.
        rows: token ids of templated prompts, without padding.
        weights: [B,K] of the prompts, or their plan; None lets the detectors judge the decoded tokens.
        max_new_tokens: longest answer; the model's context may allow less.
        batch_size: rows in a batch.
    """
    answers: list[list[int]] = [[]] * len(rows)
    special = set(model.tokenizer.all_special_ids)
    for chosen in batches([len(row) for row in rows], batch_size):
        ids, mask = model.tokens.pad([rows[row] for row in chosen])
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            weights=rows_of(weights, chosen),
            max_new_tokens=min(max_new_tokens, model.base.context_tokens - ids.shape[1]),
            do_sample=False,
            num_beams=1,
            pad_token_id=model.tokens.pad_id,
        )
        for row, tokens in zip(chosen, output[:, ids.shape[1] :].tolist(), strict=True):
            answers[row] = [token for token in model.base.cut(tokens) if token not in special]
    return answers


def score_answers(
    model: GatedCalls,
    prompts: Sequence[str],
    answers: Sequence[str],
    weights: Tensor | Plan | None,
    batch_size: int,
) -> list[Tensor]:
    """Returns the log-probability of each answer's tokens, in order; see `GatedModel.score`."""
    base = model.base
    examples: list[Example] = encode_pairs(
        base.tokenizer, base.template, prompts, answers, base.context_tokens
    )
    scores = [torch.empty(0)] * len(examples)
    for chosen in batches([len(example["input_ids"]) for example in examples], batch_size):
        batch = collate([examples[row] for row in chosen], model.tokens.pad_id).to(model.device)
        labelled = batch.labels[:, 1:] != IGNORED
        likely = [
            logits.float().log_softmax(-1).gather(1, targets[:, None]).squeeze(1).cpu()
            for logits, targets in answer_logits(model, batch, rows_of(weights, chosen))
        ]
        parts = torch.split(torch.cat(likely), labelled.sum(1).tolist())
        for row, part in zip(chosen, parts, strict=True):
            scores[row] = part
    return scores


def rows_of(weights: Tensor | Plan | None, chosen: list[int]) -> Tensor | Plan | None:
    """Returns the weights or the plan of some rows."""
    return weights.rows(chosen) if isinstance(weights, Plan) else None if weights is None else weights[chosen]
