"""Runs a BERT encoder without computing its padding: linear layers see the tokens of all rows as one list.

Shape letters: B rows, T tokens of the longest row, N tokens of all rows, L layers, D width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

KINDS = ("bert", "roberta", "xlm-roberta")


def is_plain_bert(model: Any) -> bool:
    """Whether `mean_hidden_states` computes what the model would: a BERT in evaluation mode without hooks."""
    config = model.config
    return (
        config.model_type in KINDS
        and config.hidden_act == "gelu"
        and not (model.training or getattr(config, "is_decoder", False))
        and not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    )


@torch.inference_mode()
def mean_hidden_states(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean over tokens of the embeddings and of every layer's output [B, L, D].

    Args:
        model: for which `is_plain_bert` holds.
        ids: [B, T] on the model's device.
        mask: 1 for tokens, 0 for padding on the right [B, T]; each row holds at least one token.
    """
    B, T = ids.shape
    kept = mask.bool()
    owner, heads = kept.nonzero()[:, 0], model.config.num_attention_heads
    visible = None if bool(kept.all()) else kept[:, None, None]
    x = model.embeddings(input_ids=ids)[kept]
    sums = [x.new_zeros(B, x.shape[1]).index_add_(0, owner, x)]
    for layer in model.encoder.layer:
        attention = layer.attention.self
        parts = [own(x) for own in (attention.query, attention.key, attention.value)]
        rows = x.new_zeros(B, T, 3 * x.shape[1])
        rows[kept] = torch.cat(parts, dim=1)
        query, key, value = rows.view(B, T, 3, heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        x = layer.attention.output(mixed.transpose(1, 2).reshape(B, T, -1)[kept], x)
        x = layer.output(F.gelu(layer.intermediate.dense(x)), x)
        sums.append(x.new_zeros(B, x.shape[1]).index_add_(0, owner, x))
    return torch.stack(sums, dim=1) / mask.sum(dim=1)[:, None, None]
