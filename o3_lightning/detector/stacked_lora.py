"""Runs the LoRA encoders of several requests as one batch over one shared model.

Every prompt is repeated once a request; a hook on each adapted module adds the low-rank update of the request
that a row belongs to. Shape letters: B prompts, K requests, L layers, D width, R rank, S = K R stacked ranks.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from o3_kernels import gated_lora
from o3_lightning.common.errors import InputError
from o3_lightning.detector.encoder import Encoder

A_SUFFIX, B_SUFFIX = ".lora_A.weight", ".lora_B.weight"


@contextmanager
def adapted(
    model: Any, loras: Sequence[Mapping[str, Tensor]], scaling: float, rows: Tensor
) -> Iterator[None]:
    """Adds the update of request `rows[i]` to row i of every adapted module, until the context ends.

    Raises:
        InputError: an adapter names a module that the encoder does not have.
    """
    modules = dict(model.named_modules())
    names = sorted({key.removesuffix(A_SUFFIX) for key in loras[0] if key.endswith(A_SUFFIX)})
    with ExitStack() as stack:
        for name in names:
            module = modules.get(name)
            if not isinstance(module, nn.Linear):
                raise InputError(f"the encoder has no linear module {name!r}", field="detector.lora")
            a = torch.cat([lora[name + A_SUFFIX] for lora in loras])
            b = torch.cat([scaling * lora[name + B_SUFFIX] for lora in loras], dim=1)
            rank = len(a) // len(loras)
            own = torch.nn.functional.one_hot(rows, len(loras)).repeat_interleave(rank, dim=1).to(a.dtype)
            hook = partial(add_update, a, b, own)
            stack.callback(module.register_forward_hook(hook).remove)
        yield


def add_update(
    a: Tensor, b: Tensor, own: Tensor, _: nn.Module, given: tuple[Tensor], output: Tensor
) -> Tensor:
    """Returns the output of a module with the stacked updates added."""
    return gated_lora(output, given[0], a, b, own)


def encode_stacked(
    encoder: Encoder, loras: Sequence[Mapping[str, Tensor]], scaling: float, tokens: Sequence[Sequence[int]]
) -> Tensor:
    """Returns the features of every prompt under every request's adapter [K, B, L, D].

    Args:
        encoder: the shared encoder; it is left as it was.
        loras: one adapter a request, same modules and rank, names relative to the encoder's model.
        scaling: alpha / rank.
        tokens: token ids of B prompts.
    """
    K, B = len(loras), len(tokens)
    features = torch.empty(K, B, encoder.layers, encoder.width)
    order = sorted(range(B), key=lambda row: len(tokens[row]))
    step = max(1, encoder.batch_size // K)
    for start in range(0, B, step):
        chosen = order[start : start + step]
        repeated = [tokens[row] for row in chosen] * K
        rows = torch.arange(K).repeat_interleave(len(chosen))
        with adapted(encoder.model, loras, scaling, rows):
            features[:, chosen] = encoder.forward(repeated).view(
                K, len(chosen), encoder.layers, encoder.width
            )
    return features


@dataclass(frozen=True)
class LoraEncoder(Encoder):
    """An encoder seen through the adapter of one request; the model itself is shared and not changed.

    Args:
        lora: the adapter.
        scaling: alpha / rank.
    """

    lora: Mapping[str, Tensor] | None = None
    scaling: float = 1.0

    def encode_tokens(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Returns the pooled features [B, L, D] of token ids."""
        if not self.lora or not tokens:
            return super().encode_tokens(tokens)
        return encode_stacked(self, [self.lora], self.scaling, tokens)[0]
