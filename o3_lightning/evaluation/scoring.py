"""One model pass a batch: what likelihood, memorization and membership metrics need of given answers.

Shapes: B rows, K requests.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from o3_lightning.common.errors import InputError
from o3_lightning.data.encoding import IGNORED, collate, encode_pairs
from o3_lightning.evaluation.batching import BatchRunner
from o3_lightning.gating.answer_logits import answer_logits
from o3_lightning.gating.model import GatedModel
from o3_lightning.metrics.token_scores import TokenScores, score_rows, split_scores

__all__ = ["score_pairs"]


def score_pairs(
    model: GatedModel,
    prompts: Sequence[str],
    answers: Sequence[str],
    weights: Tensor,
    runner: BatchRunner,
) -> list[TokenScores]:
    """Returns the token scores of each answer to its prompt, the end token included, in order.

    Only the answers' tokens go through the output layer, a part of them at a time; float32 logits of a whole
    batch are never held.

    Args:
        model: each prompt runs at its own weights, held for its answer.
        prompts: texts without a template.
        answers: one a prompt.
        weights: [B,K] of the prompts.
        runner: batches by length, shared between processes.

    Returns:
        The same as one by one, up to the last digits that other rows of a batch may change.

    Raises:
        InputError: a prompt leaves no room for an answer, the lists differ in length, or the model gives
            no numbers.
    """
    base = model.base
    examples = encode_pairs(base.tokenizer, base.template, prompts, answers, base.context_tokens)

    def score(chosen: list[int]) -> list[TokenScores]:
        batch = collate([examples[row] for row in chosen], model.tokens.pad_id).to(model.device)
        parts = answer_logits(model, batch, weights[chosen])
        fields = torch.cat([torch.stack(score_rows(*part)).cpu() for part in parts], dim=1)
        if bool(fields.isnan().any()):  # such a model answers nothing right, and would pass for unlearned
            raise InputError(
                f"the model '{base.id}' gives no numbers (NaN): its weights are damaged, or too large for "
                "their type; try base.dtype float32",
                field="base",
            )
        lengths = (batch.labels[:, 1:] != IGNORED).sum(1).tolist()
        return split_scores(fields, lengths)

    return runner.map([len(example["input_ids"]) for example in examples], score, "scoring")
