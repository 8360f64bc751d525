"""Overlap between the adapters of requests: principal angles, cosines of weight updates, logit interference.

Weight updates are compared through Gram matrices of rank times requests; no weight-sized matrix is made.
Shapes: P requests, R rank, D width.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations_with_replacement
from typing import Any

import torch
from torch import Tensor, nn

from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.data.encoding import TokenBatch, collate, encode_prompts
from o3_lightning.models.base import BaseModel

RELATIVE_ZERO = 1e-6  # of the largest singular value; smaller directions span nothing
Matrix = list[list[float]]


def overlap_matrices(history: AdapterHistory) -> dict[str, Matrix]:
    """Returns matrices [P, P] of the overlap between the adapters of each pair of requests.

    Returns:
        "row_overlap" and "column_overlap", the mean squared cosine of the principal angles between the
        spaces of lora_A's rows and lora_B's columns, in [0, 1], mean over modules; "row_angle" and
        "column_angle", the smallest principal angle in degrees, mean over modules, in [0, 90];
        "update_cosine", <dW_i, dW_j> / (|dW_i| |dW_j|) over all modules, in [-1, 1].
    """
    matrices: dict[str, Matrix] = {}
    for name, side in (("row", history.inputs), ("column", history.outputs)):
        overlap, angle = space_matrices(list(side.values()), len(history))
        matrices[f"{name}_overlap"], matrices[f"{name}_angle"] = overlap.tolist(), angle.tolist()
    matrices["update_cosine"] = update_cosines(history).tolist()
    return matrices


def space_matrices(stacks: list[Tensor], requests: int) -> tuple[Tensor, Tensor]:
    """Returns mean squared cosines and smallest angles in degrees between spaces, means over modules."""
    overlap = torch.zeros(requests, requests, dtype=torch.float64)
    angle = torch.zeros_like(overlap)
    for stacked in stacks:
        bases = [row_basis(rows) for rows in stacked]
        for i, j in combinations_with_replacement(range(requests), 2):
            cosines = principal_cosines(bases[i], bases[j])
            share = cosines.square().mean() if len(cosines) else overlap.new_zeros(())
            smallest = torch.rad2deg(cosines[0].acos()) if len(cosines) else overlap.new_tensor(90.0)
            overlap[i, j] += share / len(stacks)
            angle[i, j] += smallest / len(stacks)
    return symmetric(overlap), symmetric(angle)


def symmetric(upper: Tensor) -> Tensor:
    """Returns a matrix with its upper triangle mirrored."""
    return upper.triu() + upper.triu(1).T


def principal_cosines(first: Tensor, second: Tensor) -> Tensor:
    """Returns the cosines of the principal angles between two spaces, largest first, in [0, 1].

    Of orthonormal columns [D, K] and [D, Q], as from `row_basis`; there are as many cosines, in float64, as
    the smaller space has dimensions.

    Example:
        >>> plane, other = torch.eye(3)[:2], torch.eye(3)[1:]
        >>> principal_cosines(row_basis(plane), row_basis(other)).tolist()
        [1.0, 0.0]
    """
    if not first.shape[1] or not second.shape[1]:
        return first.new_zeros(0)
    cosines: Tensor = torch.linalg.svdvals(first.T @ second).clamp(0, 1)
    return cosines


def row_basis(rows: Tensor) -> Tensor:
    """Returns orthonormal columns [D, K], in float64, that span rows [R, D]; dependent rows count nothing."""
    rows = rows.double()
    _, values, directions = torch.linalg.svd(rows, full_matrices=False)
    kept = int((values > RELATIVE_ZERO * values[0]).sum()) if len(values) and values[0] > 0 else 0
    basis: Tensor = directions[:kept].T
    return basis


def update_cosines(history: AdapterHistory) -> Tensor:
    """Returns the cosines between the weight updates of requests over all modules, [P, P] float64.

    Source:
        <B_i A_i, B_j A_j> = sum of (B_i^T B_j) * (A_i A_j^T), products of size rank by rank.
    """
    requests = len(history)
    inner = torch.zeros(requests, requests, dtype=torch.float64)
    for path, a in history.inputs.items():
        inner += torch.einsum("irsj,irsj->ij", grams(a), grams(history.outputs[path]))
    lengths = inner.diagonal().sqrt().clamp(min=math.sqrt(torch.finfo(torch.float64).tiny))
    return (inner / lengths[:, None] / lengths[None]).clamp(-1, 1)


def grams(stacked: Tensor) -> Tensor:
    """Returns the products of all pairs, [P, R, R, P], of factors [P, R, D]."""
    stacked = stacked.double()
    return torch.einsum("ird,jsd->irsj", stacked, stacked)


@contextmanager
def attached(model: nn.Module, history: AdapterHistory, place: int) -> Iterator[None]:
    """Adds one adapter of a history to a model's linear layers within the context, through hooks."""
    modules = dict(model.named_modules())
    handles = []
    try:
        for path, stacked in history.inputs.items():
            module = modules[path]
            factor = next(module.parameters())
            a = stacked[place].to(factor.device)
            b = history.outputs[path][place].to(factor.device) * history.scales[place].get(path, 0.0)
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
    base: BaseModel, history: AdapterHistory, prompts: Mapping[str, Sequence[str]], *, batch_size: int = 32
) -> list[list[float]]:
    """Returns how far each adapter at full weight moves the next token on some prompts of each request.

    [i][j] = mean KL(base || base with adapter j) in nats at the last token of request i's prompts.
    """
    matrix = []
    for id in history.ids:
        ids = encode_prompts(base.tokenizer, base.template, prompts[id], base.context_tokens)
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
