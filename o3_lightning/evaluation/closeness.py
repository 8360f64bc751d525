"""How near a gated model is to a model that never saw the forget set, and how deep its forgetting goes.

Three-sample audit: is the gated model nearer to the retrained model than to the original one? Unlearning
depth: the hidden states of a layer are copied into the original model, where it predicts the true answer. A
layer that has forgotten lowers the answer's likelihood as much as the same layer of the retrained model does.

Source: Ribero et al. 2026 (relative three-sample test; here with distances of next-token distributions); Lee
et al. 2026, "Measuring the depth of LLM unlearning via activation patching" (arXiv 2605.24614).

Shapes: B rows, N answer tokens of a batch, L layers, D width, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import scipy
import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from o3_lightning.common.plain import mean_of
from o3_lightning.data.encoding import IGNORED, TokenBatch, collate, encode_pairs
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.gating.answer_logits import answer_logits, has_plain_head
from o3_lightning.gating.model import GatedModel
from o3_lightning.gating.tokens import batches

LEAST_GAP = 0.05  # nats: a layer whose exchange costs less holds nothing of the answer
Columns = dict[str, list[float]]


@torch.no_grad()
def closeness(
    model: GatedModel, retrained: GatedModel, rows: Sequence[QuestionAnswer], batch_size: int
) -> dict[str, float | int | None]:
    """Returns the audit of a gated model on the true answers of a forget set.

    Args:
        model: with its gate; at weights of 0 it is the original model.
        retrained: of the same architecture and tokenizer, without a gate.
        rows: of the forget set.
        batch_size: rows a pass.

    Returns:
        `to_retrained`, `to_original`: total variation distance in [0, 1] of the next-token distributions,
        mean over tokens and rows; `nearer`: share of rows that are nearer to the retrained model, with the
        `p_value` of a sign test (rows of one fact are not independent); `ks_retrained`, `ks_original`: KS
        distance of the losses of the true answers; `depth`: unlearning depth in [0, 1], 0 for the original
        and 1 for the retrained model, None where no layer has a gap; `rows`.
    """
    base = model.base
    for one in (model, retrained):
        has_plain_head(one.base.model)  # runs the model once, which must not be recorded
    prompts, answers = [row.prompt for row in rows], [row.truth for row in rows]
    examples = encode_pairs(base.tokenizer, base.template, prompts, answers, base.context_tokens)
    weights, found = model.weights(prompts), dict[str, list[float]]()
    for chosen in batches([len(example["input_ids"]) for example in examples], batch_size):
        batch = collate([examples[row] for row in chosen], model.tokens.pad_id).to(model.device)
        for name, column in audit(model, retrained, batch, weights[chosen]).items():
            found.setdefault(name, []).extend(column)
    nearer = [ours < theirs for ours, theirs in zip(found["to_retrained"], found["to_original"], strict=True)]
    losses = {name: found[f"loss_{name}"] for name in ("gated", "retrained", "original")}
    return {
        "rows": len(rows),
        "to_retrained": mean_of(found["to_retrained"]),
        "to_original": mean_of(found["to_original"]),
        "nearer": sum(nearer) / len(nearer),
        "p_value": float(scipy.stats.binomtest(sum(nearer), len(nearer), alternative="greater").pvalue),
        "ks_retrained": float(scipy.stats.ks_2samp(losses["gated"], losses["retrained"]).statistic),
        "ks_original": float(scipy.stats.ks_2samp(losses["gated"], losses["original"]).statistic),
        "depth": mean_of([value for value in found["depth"] if value >= 0]),
    }


def audit(model: GatedModel, retrained: GatedModel, batch: TokenBatch, weights: Tensor) -> Columns:
    """Returns the values of each row of a batch; its depth is -1 where no layer has a gap."""
    labelled = batch.labels[:, 1:] != IGNORED
    targets, counts = batch.labels[:, 1:][labelled].cpu(), labelled.sum(1).tolist()
    none = torch.zeros_like(weights)
    runs = {"gated": (model, weights), "retrained": (retrained, weights[:, :0]), "original": (model, none)}
    likely, states = dict[str, Tensor](), dict[str, list[Tensor]]()
    for name, (source, acting) in runs.items():
        states[name] = []
        with watched(source, partial(record, states[name], labelled)):
            likely[name] = log_probabilities(source, batch, acting)
    true = {name: values.gather(1, targets[:, None])[:, 0] for name, values in likely.items()}
    gaps = {name: torch.zeros(len(states[name]), len(counts)) for name in ("gated", "retrained")}
    for name, found in gaps.items():
        for layer, state in enumerate(states[name]):
            with watched(model, partial(replace, state, labelled), layer):
                patched = log_probabilities(model, batch, none).gather(1, targets[:, None])[:, 0]
            found[layer] = by_row(true["original"] - patched, counts)
    gaps["retrained"] = gaps["retrained"].where(gaps["retrained"] > LEAST_GAP, 0)
    erased = gaps["gated"].clamp(min=0).minimum(gaps["retrained"]).sum(0)
    depth = (erased / gaps["retrained"].sum(0)).nan_to_num(-1.0)
    apart = {other: (likely["gated"].exp() - likely[other].exp()).abs().sum(1) / 2 for other in runs}
    return {
        "depth": depth.tolist(),
        **{f"to_{other}": by_row(apart[other], counts).tolist() for other in ("retrained", "original")},
        **{f"loss_{name}": by_row(-values, counts).tolist() for name, values in true.items()},
    }


def log_probabilities(model: GatedModel, batch: TokenBatch, weights: Tensor) -> Tensor:
    """Returns the log-probabilities [N,V] at the places that predict the answers' tokens, on the CPU."""
    parts = [logits.float().log_softmax(-1).cpu() for logits, _ in answer_logits(model, batch, weights)]
    return torch.cat(parts)


def by_row(values: Tensor, counts: Sequence[int]) -> Tensor:
    """Returns the mean of values [N] over the tokens of each row, [B]."""
    return torch.stack([part.mean() for part in torch.split(values, list(counts))])


@contextmanager
def watched(model: GatedModel, look: Callable[[Tensor], None], layer: int | None = None) -> Iterator[None]:
    """Shows `look` the output [B,T,D] of one decoder layer, or of all in order, in every pass within."""

    def hook(_: nn.Module, __: Any, output: Any) -> None:
        look(output[0] if isinstance(output, tuple) else output)

    layers = [part for part in model.base.model.modules() if isinstance(part, GradientCheckpointingLayer)]
    chosen = layers if layer is None else layers[layer : layer + 1]
    handles = [part.register_forward_hook(hook) for part in chosen]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def record(states: list[Tensor], labelled: Tensor, hidden: Tensor) -> None:
    """Appends the hidden states [N,D] at the labelled places."""
    states.append(hidden[:, :-1][labelled].clone())


def replace(state: Tensor, labelled: Tensor, hidden: Tensor) -> None:
    """Overwrites the hidden states at the labelled places."""
    hidden[:, :-1][labelled] = state.to(hidden.dtype)
