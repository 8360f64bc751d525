"""Runs gated layers that read the same input, such as query, key and value, in one product with A.

A model calls them one after the other with the same tensor. The first call computes all of them and keeps the
other outputs until their layers are called.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from o3_kernels import gated_lora_group
from o3_lightning.gating.linear import GatedLinear

# children of one module that decoders (Llama, Mistral, Qwen, Gemma, Phi, OPT) call with one tensor
NAMES = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("gate_proj", "up_proj"), ("w1", "w3"))


class Siblings:
    """Layers that share their input; they run together if their adapters are of the same requests and ranks.

    Args:
        layers: at least two.

    Source:
        Each layer's output is that of `GatedLinear`; only the products with A are computed together.
    """

    def __init__(self, layers: Sequence[GatedLinear]) -> None:
        self.layers = list(layers)
        self.stacked: Tensor | None = None  # [J*S,D], while the layers are active together
        self._input: tuple[Tensor, int] | None = None
        self._outputs: dict[int, Tensor] = {}

    def activate(self) -> None:
        """Concatenates the active A factors; falls back to per-layer execution if the layers differ."""
        self.deactivate()
        active = [layer.active for layer in self.layers]
        first = active[0]
        if first is None or any(other is None or other.columns != first.columns for other in active):
            return
        self.stacked = torch.cat([other.a for other in active if other is not None])
        for place, layer in enumerate(self.layers):
            layer.shared_forward = partial(self._output, place)

    def deactivate(self) -> None:
        """Drops stacked factors and kept outputs."""
        self.stacked, self._input, self._outputs = None, None, {}
        for layer in self.layers:
            layer.shared_forward = None

    def _output(self, place: int, x: Tensor) -> Tensor:
        """Returns the output of one layer; the first call of a round computes those of all layers."""
        if self._input is None or not is_same(x, self._input) or place not in self._outputs:
            self._outputs = dict(enumerate(self._run(x)))
            self._input = (x, version(x))
        result = self._outputs.pop(place)
        if not self._outputs:
            self._input = None  # the hidden states need not outlive the last call
        return result

    def _run(self, x: Tensor) -> list[Tensor]:
        """Runs all layers and adds their adapters."""
        outputs: list[Tensor] = [layer.inner(x) for layer in self.layers]
        active = [layer.active for layer in self.layers if layer.active is not None]
        assert self.stacked is not None
        dtype, rows = outputs[0].dtype, x.shape[0]
        weights, live = active[0].spread(rows)
        results = gated_lora_group(
            [y.reshape(rows, -1, y.shape[-1]) for y in outputs],
            x.reshape(rows, -1, x.shape[-1]).to(dtype),
            self.stacked.to(dtype),
            [factors.b.to(dtype) for factors in active],
            weights,
            live=live,
            inplace=not torch.is_grad_enabled(),
        )
        return [result.view(y.shape) for result, y in zip(results, outputs, strict=True)]


def find_siblings(layers: dict[str, GatedLinear]) -> list[Siblings]:
    """Groups layers by path: children of one module whose names imply a shared input."""
    parents: dict[str, dict[str, GatedLinear]] = {}
    for path, layer in layers.items():
        parent, _, name = path.rpartition(".")
        parents.setdefault(parent, {})[name] = layer
    found: Iterable[list[GatedLinear]] = (
        [children[name] for name in names if name in children]
        for children in parents.values()
        for names in NAMES
    )
    return [Siblings(group) for group in found if len(group) > 1 and len({g.width for g in group}) == 1]


def version(x: Tensor) -> int:
    """Returns the counter that in-place writes increment; 0 for inference tensors, which have none."""
    return 0 if x.is_inference() else x._version


def is_same(x: Tensor, kept: tuple[Tensor, int]) -> bool:
    """Returns whether x is the kept tensor and was not written to since."""
    return x is kept[0] and version(x) == kept[1]
