"""The gradient norm of every row, for membership inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from o3_lightning.data.encoding import collate, encode_pairs
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.evaluation.batching import BatchRunner
from o3_lightning.gating.model import GatedModel
from o3_lightning.metrics.gradients import loss_gradient_norm

__all__ = ["gradient_norms"]


def gradient_norms(
    model: GatedModel, rows: Sequence[QuestionAnswer], weights: Tensor, runner: BatchRunner
) -> list[float]:
    """Returns the gradient norm of each row's mean loss, by the base model's parameters, gate included.

    Args:
        model: each row runs at its own weights; its parameters are as before afterwards.
        rows: prompts and true answers, B of them.
        weights: [B,K].
        runner: shares the rows between processes; each row runs alone.

    Returns:
        B values >= 0.
    """
    base = model.base
    prompts, answers = [row.prompt for row in rows], [row.answer for row in rows]
    examples = encode_pairs(base.tokenizer, base.template, prompts, answers, base.context_tokens)

    def norms(chosen: list[int]) -> list[float]:
        found = []
        with differentiable(base.model) as parameters:
            for row in chosen:
                batch = collate([examples[row]], model.tokens.pad_id).to(model.device)
                output = model(batch.input_ids, batch.attention_mask, batch.labels, weights[[row]])
                found.append(loss_gradient_norm(output.loss, parameters))
        return found

    return runner.map([len(example["input_ids"]) for example in examples], norms, "gradients")


@contextmanager
def differentiable(model: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Within, the floating parameters of a model have gradients; yields them."""
    parameters = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    before = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            yield parameters
    finally:
        for parameter, needed in zip(parameters, before, strict=True):
            parameter.requires_grad_(needed)
