"""A linear layer plus the adapters of all requests, each row at its own weights.

Shapes: B rows, T tokens, D width in, O width out, S stacked rank of the active requests, K requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from o3_kernels import gated_lora, live_rows
from o3_lightning.common.errors import InputError


class Active(NamedTuple):
    """The stacked adapters that act in a layer.

    Args:
        a: A factors [S,D].
        b: B factors [O,S].
        weights: [B,S] weight of each row for each rank.
        live: indices of the rows with a weight above 0; None on a GPU.
        columns: the request number of each of the S ranks.
    """

    a: Tensor
    b: Tensor
    weights: Tensor
    live: Tensor | None
    columns: list[int]

    def spread(self, rows: int) -> tuple[Tensor, Tensor | None]:
        """Returns weights and live rows for a batch in which each row is repeated for its beams or sequences.

        Raises:
            InputError: rows is not a multiple of B.
        """
        weights = match_rows(self.weights, rows)
        return weights, self.live if weights is self.weights else None


class GatedLinear(nn.Module):
    """Returns W x + B_cat (w * (A_cat x)); without active weights exactly what the inner layer returns.

    Args:
        inner: the base model's own layer, `nn.Linear` or GPT-2's `Conv1D`; it is neither copied nor changed.
        factors: A [R,D] and B [O,R], the scaling folded in, by the number of the request.

    Raises:
        InputError: the inner layer is of another kind, or a factor does not fit it.

    Source:
        The formula of O3, section 3.2, for many requests at once; PEFT routes rows to adapters by name and
        has no weight per row.

    Example:
        >>> layer = GatedLinear(nn.Linear(2, 1, bias=False), {0: (torch.ones(1, 2), torch.ones(1, 1))})
        >>> layer.activate([0], torch.tensor([[0.5], [0.0]]))
        >>> nn.init.zeros_(layer.inner.weight).tolist()
        [[0.0, 0.0]]
        >>> layer(torch.ones(2, 3, 2))[:, 0, 0].tolist()
        [1.0, 0.0]
    """

    def __init__(self, inner: nn.Module, factors: Mapping[int, tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        wide, out = layer_widths(inner)
        for a, b in factors.values():
            if a.shape[1] != wide or b.shape[0] != out:
                expected, got = f"A [R,{wide}] and B [{out},R]", f"{tuple(a.shape)} and {tuple(b.shape)}"
                raise InputError(f"the adapter does not fit the base model: expected {expected}, got {got}")
        self.inner = inner
        self.factors = {number: (a, b) for number, (a, b) in factors.items()}
        self.width = wide
        self.active: Active | None = None
        # set by `Siblings` while this layer runs together with others that read the same input
        self.shared_forward: Callable[[Tensor], Tensor] | None = None

    def activate(self, numbers: Sequence[int], weights: Tensor) -> None:
        """Stacks the adapters of some requests for the coming calls.

        Args:
            numbers: the requests that act; those without a factor in this layer are skipped.
            weights: [B,K] weight of each row for each request.
        """
        here = [number for number in numbers if number in self.factors]
        if not here:
            self.active = None
            return
        pairs = [self.factors[number] for number in here]
        columns = [number for number, (a, _) in zip(here, pairs, strict=True) for _ in range(a.shape[0])]
        a = pairs[0][0] if len(pairs) == 1 else torch.cat([a for a, _ in pairs])
        b = pairs[0][1] if len(pairs) == 1 else torch.cat([b for _, b in pairs], dim=1)
        by_rank = weights[:, columns]
        # the GPU kernel skips rows without weight itself; finding them here would synchronise in every layer
        live = live_rows(by_rank) if by_rank.device.type == "cpu" else None
        self.active = Active(a, b, by_rank, live, columns)

    def deactivate(self) -> None:
        """Removes the stacked adapters and weights."""
        self.active = None

    def forward(self, x: Tensor) -> Tensor:
        """Returns [..., O] for x [B, ..., D]; beams and returned sequences repeat each row's weights.

        Raises:
            InputError: the rows of x are not a multiple of the rows of the weights.
        """
        if self.shared_forward is not None:
            return self.shared_forward(x)
        y: Tensor = self.inner(x)
        if self.active is None:
            return y
        a, b, rows = self.active.a, self.active.b, x.shape[0]
        weights, live = self.active.spread(rows)
        flat_x = x.reshape(rows, -1, x.shape[-1]).to(y.dtype)
        flat_y = y.reshape(rows, -1, y.shape[-1])
        in_place = not torch.is_grad_enabled()
        out = gated_lora(flat_y, flat_x, a.to(y.dtype), b.to(y.dtype), weights, live=live, inplace=in_place)
        return out.view(y.shape)

    def __getattr__(self, name: str) -> Any:
        """Returns attributes that a model reads from its layers, such as `weight`, from the inner layer."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


def match_rows(weights: Tensor, rows: int) -> Tensor:
    """Repeats each row of weights [B,...] for its beams or returned sequences: [rows,...].

    Raises:
        InputError: rows is not a multiple of B.
    """
    if rows == weights.shape[0]:
        return weights
    if rows % weights.shape[0]:
        message = f"expected a multiple of {weights.shape[0]} rows, got {rows}"
        raise InputError(message, field="weights")
    return weights.repeat_interleave(rows // weights.shape[0], dim=0)


def layer_widths(layer: nn.Module) -> tuple[int, int]:
    """Returns the widths D in and O out of a linear layer.

    Raises:
        InputError: it is not one that can be gated.
    """
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, Conv1D):
        return int(layer.weight.shape[0]), int(layer.weight.shape[1])
    raise InputError(f"expected nn.Linear or Conv1D, got {type(layer).__name__}; it cannot be gated")
