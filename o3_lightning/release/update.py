"""Adding LoRA factors to a model's weights, for good or for the time of a context."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from o3_lightning.common.errors import InputError
from o3_lightning.models.lora import LoraFactors, weight_change

__all__ = ["applied", "apply"]


@torch.no_grad()
def apply(model: Any, update: LoraFactors, sign: float = 1.0) -> None:
    """Adds an update to a model's weights in place, computed in float64.

    Args:
        model: the base model.
        update: what to add.
        sign: -1 takes it back, up to the rounding of the weights' dtype.

    Raises:
        InputError: the model has no such module, or its weight is quantised or of another shape.
    """
    modules = dict(model.named_modules())
    for path, (a, b) in update.folded().items():
        weight = getattr(modules.get(path), "weight", None)
        if not isinstance(weight, Tensor) or not weight.is_floating_point():
            raise InputError(f"{path}: there is no weight to change, or it is quantised")
        change = weight_change(modules[path], a, b, torch.float64)
        if change.shape != weight.shape:
            raise InputError(
                f"{path}: the update is of shape {tuple(change.shape)}, the weight of {tuple(weight.shape)}"
            )
        weight.copy_(weight.double().add(change.to(weight.device), alpha=sign).to(weight.dtype))


@contextmanager
def applied(model: Any, update: LoraFactors) -> Iterator[None]:
    """Context in which the model has an update; afterwards, also after an error, every bit is as before."""
    modules = dict(model.named_modules())
    kept = {path: modules[path].weight.detach().clone() for path in update.pairs if path in modules}
    try:
        apply(model, update)
        yield
    finally:
        with torch.no_grad():
            for path, weight in kept.items():
                modules[path].weight.copy_(weight)
