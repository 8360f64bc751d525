"""Installs the gated layers in a base model for the duration of one call and always removes them again.

Between calls the base model is unchanged: the same modules, names and bits. Calls of several threads on one
base model run one after the other; a call inside another one runs at its own weights, and the outer weights
act again afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from o3_lightning.common.errors import InputError
from o3_lightning.gating.linear import GatedLinear
from o3_lightning.gating.shared_input_layers import Siblings, find_siblings
from o3_lightning.models.lora import LoraFactors


class OpenGates(NamedTuple):
    """The gates that are open on one base model, outermost first, and the lock that their threads share."""

    lock: Any
    stack: list[tuple[Gate, list[int], Tensor]]


OPEN_GATES: WeakKeyDictionary[nn.Module, OpenGates] = WeakKeyDictionary()


class Gate:
    """The gated layers of one base model.

    Args:
        model: the base model.
        adapters: one per request, in the order of the weights' columns; None for a request without one.

    Raises:
        InputError: an adapter names a module that the model lacks or that cannot be gated.

    Attributes:
        lock: re-entrant; held by whichever thread uses the base model. All gates of a model share it.
    """

    def __init__(self, model: nn.Module, adapters: Sequence[LoraFactors | None]) -> None:
        self.model = model
        self.adapted = [number for number, adapter in enumerate(adapters) if adapter is not None]
        self.merged: set[int] = set()
        self._open = OPEN_GATES.setdefault(model, OpenGates(RLock(), []))
        self.lock = self._open.lock
        self.layers: dict[str, GatedLinear] = {}
        self._siblings: list[Siblings] = []
        self._places: dict[str, tuple[nn.Module, str]] = {}
        self._replaced: dict[str, nn.Module] = {}
        with self.open(torch.zeros(1, len(adapters))):  # never over the layers of a gate that is open
            self.layers = {
                path: build_layer(model, path, factors) for path, factors in by_module(adapters).items()
            }
            self._siblings = find_siblings(self.layers)
            self._places = {path: find_place(model, path) for path in self.layers}

    @contextmanager
    def open(self, weights: Tensor) -> Iterator[None]:
        """Runs the calls within at the given weights; rows of zeros are bit for bit those of the base model.

        Args:
            weights: [B,K], the strength of every request on every row; merged requests and requests
                without an adapter count as 0.
        """
        used = weights.ne(0).any(0).tolist()
        numbers = [number for number in self.adapted if used[number] and number not in self.merged]
        stack = self._open.stack
        with self.lock:
            outer = stack[-1] if stack else None
            if outer is not None:
                outer[0]._remove()
            stack.append((self, numbers, weights))
            try:
                self._install(numbers, weights)
                yield
            finally:
                self._remove()
                stack.pop()
                if outer is not None:
                    outer[0]._install(*outer[1:])

    def _install(self, numbers: Sequence[int], weights: Tensor) -> None:
        """Puts the gated layers in place, with the adapters of some requests active; none leaves the base."""
        if not numbers:
            return
        for layer in self.layers.values():
            layer.activate(numbers, weights)
        for siblings in self._siblings:
            siblings.activate()
        for path, (parent, name) in self._places.items():
            self._replaced[path] = parent.get_submodule(name)
            parent._modules[name] = self.layers[path]

    def _remove(self) -> None:
        """Puts back the layers that were in place: the base model's own, or those of a training."""
        for siblings in self._siblings:
            siblings.deactivate()
        for path, layer in self._replaced.items():
            parent, name = self._places[path]
            parent._modules[name] = layer
            self.layers[path].deactivate()
        self._replaced.clear()


def by_module(adapters: Sequence[LoraFactors | None]) -> dict[str, dict[int, tuple[Tensor, Tensor]]]:
    """Returns the factors of every request, module by module."""
    modules: dict[str, dict[int, tuple[Tensor, Tensor]]] = {}
    for number, adapter in enumerate(adapters):
        for path, pair in adapter.folded().items() if adapter is not None else ():
            modules.setdefault(path, {})[number] = pair
    return modules


def build_layer(model: nn.Module, path: str, factors: Mapping[int, tuple[Tensor, Tensor]]) -> GatedLinear:
    """Returns the gated form of one layer, the factors on its device and in its dtype."""
    parent, name = find_place(model, path)
    inner = getattr(parent, name)
    weight = getattr(inner, "weight", torch.empty(0))
    dtype = weight.dtype if weight.is_floating_point() else torch.float32
    device = weight.device
    moved = {number: (a.to(device, dtype), b.to(device, dtype)) for number, (a, b) in factors.items()}
    try:
        return GatedLinear(inner, moved)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def find_place(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    """Returns the parent of a module and the name that it has there."""
    parent_path, _, name = path.rpartition(".")
    try:
        parent = model.get_submodule(parent_path)
        parent.get_submodule(name)
    except AttributeError as error:
        raise InputError(f"the adapter names a module that the base model lacks: {path}") from error
    return parent, name
