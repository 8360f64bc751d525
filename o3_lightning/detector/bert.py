"""Runs a BERT encoder without computing its padding: linear layers see the tokens of all rows as one list.

Shape letters: B rows, T tokens of the longest row, N tokens of all rows, L layers, D width.
"""

from typing import Any

import torch
from torch import Tensor, nn
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


def halve_linear_layers(model: Any) -> None:
    """Casts the weights of a BERT's linear layers to bfloat16; embeddings, norms and sums stay in float32."""
    for module in model.encoder.modules():
        if isinstance(module, nn.Linear):
            module.to(torch.bfloat16)


@torch.inference_mode()
def mean_hidden_states(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean over tokens of the embeddings and of every layer's output [B, L, D].

    Args:
        model: for which `is_plain_bert` holds; its linear layers may be in another type than the rest.
        ids: [B, T] on the model's device.
        mask: 1 for tokens, 0 for padding on the right [B, T]; each row holds at least one token.
    """
    B, T = ids.shape
    kept, heads = mask.bool(), model.config.num_attention_heads
    owner, half = kept.nonzero()[:, 0], model.encoder.layer[0].intermediate.dense.weight.dtype
    x, padding = model.embeddings(input_ids=ids)[kept], ~kept[:, None, None]
    full = not bool(padding.any())
    bias = None if full else x.new_zeros(padding.shape, dtype=half).masked_fill_(padding, -torch.inf)
    sums = [x.new_zeros(B, x.shape[1]).index_add_(0, owner, x)]
    for layer in model.encoder.layer:
        attention, y = layer.attention.self, x.to(half)
        rows = torch.cat([own(y) for own in (attention.query, attention.key, attention.value)], dim=1)
        if not full:
            rows = rows.new_zeros(B, T, rows.shape[1]).index_put_((kept,), rows)
        query, key, value = rows.view(B, T, 3, heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed = mixed.transpose(1, 2).reshape(B, T, -1)
        x = layer.attention.output(mixed.flatten(0, 1) if full else mixed[kept], x)
        x = layer.output(F.gelu(layer.intermediate.dense(x.to(half))), x)
        sums.append(x.new_zeros(B, x.shape[1]).index_add_(0, owner, x))
    return torch.stack(sums, dim=1) / mask.sum(dim=1)[:, None, None]
