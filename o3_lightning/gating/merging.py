"""Folding an adapter into the base weights for good, and taking it out again to the last bit."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from o3_lightning.common.errors import InputError
from o3_lightning.gating.gate import Gate
from o3_lightning.gating.linear import layer_widths
from o3_lightning.models.lora import weight_change

TOLERATED_LOSS = 0.01
logger = logging.getLogger(__name__)


class Merges:
    """Which requests are folded into a model's weights.

    Args:
        gate: the gate of the model; merged requests no longer act through it.
    """

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self._originals: dict[str, Tensor] = {}
        self._order: list[int] = []

    @torch.no_grad()
    def merge(self, number: int, *, reversible: bool = True) -> None:
        """Adds B A to the weight of every layer that a request adapts, computed in float32.

        A warning gives the share of the update that rounding to the weights' dtype loses, if it is over 1 %.

        Args:
            number: the request.
            reversible: whether to keep the weights as they were, which takes as much memory as they do.

        Raises:
            InputError: the request has no adapter or is merged, a weight is shared or quantised, or it was
                merged irreversibly before.
        """
        if number not in self.gate.adapted:
            raise InputError("the request has no adapter to merge")
        if number in self.gate.merged:
            raise InputError("the request is merged already")
        paths = [path for path, layer in self.gate.layers.items() if number in layer.factors]
        for path in paths:
            self._check(path)
        if reversible:
            for path in paths:
                self._originals.setdefault(path, self._weight(path).clone())
            self._order.append(number)
        lost, whole = 0.0, 0.0
        for path in paths:
            error, size = self._add(self._weight(path), path, number)
            lost, whole = lost + error, whole + size
            if not reversible and path in self._originals:
                self._add(self._originals[path], path, number)
        self.gate.merged.add(number)
        share = math.sqrt(lost / whole) if whole else 0.0
        if share > TOLERATED_LOSS:
            dtype = str(self._weight(paths[0]).dtype).removeprefix("torch.")
            logger.warning(
                "merging lost %.0f %% of the adapter's update to rounding in %s; load the base model with "
                "base.dtype float32 to keep it, and convert it afterwards",
                100 * share,
                dtype,
            )

    @torch.no_grad()
    def unmerge(self, number: int) -> None:
        """Takes a merged request out again; the others stay, and without others every bit is as before.

        Raises:
            InputError: the request is not merged, or not reversibly.
        """
        if number not in self.gate.merged:
            raise InputError("the request is not merged")
        if number not in self._order:
            raise InputError("the request was merged for good: reversible=False keeps nothing to go back to")
        self._order.remove(number)
        self.gate.merged.discard(number)
        for path in [path for path in self._originals if number in self.gate.layers[path].factors]:
            self._weight(path).copy_(self._originals[path])
            for other in self._order:
                if other in self.gate.layers[path].factors:
                    self._add(self._weight(path), path, other)
        if not self._order:
            self._originals.clear()

    def _weight(self, path: str) -> Tensor:
        weight = self.gate.layers[path].inner.weight
        assert isinstance(weight, Tensor)
        return weight

    def _add(self, weight: Tensor, path: str, number: int) -> tuple[float, float]:
        """Adds one request's B A for one layer to a weight; returns the squared norms of rounding and B A."""
        layer = self.gate.layers[path]
        change = weight_change(layer.inner, *layer.factors[number], torch.float32)
        wanted = weight.float() + change
        weight.copy_(wanted.to(weight.dtype))
        return float((weight.float() - wanted).square().sum()), float(change.square().sum())

    def _check(self, path: str) -> None:
        """Refuses a weight that cannot be changed for this layer alone."""
        weight = self._weight(path)
        widths = layer_widths(self.gate.layers[path].inner)
        if not weight.is_floating_point() or sorted(weight.shape) != sorted(widths):
            raise InputError(f"{path}: a quantised weight cannot take an adapter in")
        holders = sum(
            parameter is weight
            for module in self.gate.model.modules()
            for parameter in module._parameters.values()
        )
        if holders != 1:
            raise InputError(f"{path}: its weight is shared with another layer")
