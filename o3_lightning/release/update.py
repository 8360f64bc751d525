"""The update of a round, and its application to the weights, permanently or within a context."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from o3_lightning.common.errors import InputError
from o3_lightning.models.lora import LoraFactors, weight_change


def release_update(
    forget: LoraFactors, retain: LoraFactors | None, mode: str, lambda_forget: float, lambda_retain: float
) -> LoraFactors:
    """Returns the update of the weights, - lambda_f dW_f + lambda_r dW_r.

    Args:
        forget: the forget adapter.
        retain: the retain adapter; required by "ext_sub" and if `lambda_retain` is not 0.
        mode: "ext_sub" removes the part of dW_f along the shared direction, per module.
        lambda_forget: lambda_f, above 0.
        lambda_retain: lambda_r, at least 0.
    """
    if retain is None:
        return LoraFactors.stacked([forget.scaled(-lambda_forget)])
    added = dict.fromkeys(retain.pairs, lambda_retain)
    taken = dict.fromkeys(forget.pairs, -lambda_forget)
    if mode == "ext_sub":
        for module in forget.pairs.keys() & retain.pairs.keys():
            of_forget, of_retain = shared_part(forget, retain, module)
            taken[module] = -lambda_forget * (1 - of_forget)
            added[module] += lambda_forget * of_retain
    terms = [forget.scaled(taken)]
    if any(added.values()):
        terms.append(retain.scaled(added))
    return LoraFactors.stacked(terms)


def shared_part(forget: LoraFactors, retain: LoraFactors, module: str) -> tuple[float, float]:
    """Returns the projection of dW_f onto the shared direction, as factors of dW_f and dW_r.

    The shared direction of a module is the bisector dW_f / |dW_f| + dW_r / |dW_r|.

    Source:
        Ext-Sub (Hu et al. 2024, "Separate the Wheat from the Chaff"), whose code projects on the same
        bisector; here everything is computed from products of size rank by rank.
    """
    one = inner(forget, forget, module) ** 0.5
    two = inner(retain, retain, module) ** 0.5
    if not one or not two:
        return 0.0, 0.0
    cosine = inner(forget, retain, module) / (one * two)
    length = 2 + 2 * cosine
    if length <= torch.finfo(torch.float64).eps:
        return 0.0, 0.0
    along = one * (1 + cosine) / length
    return along / one, along / two


def inner(left: LoraFactors, right: LoraFactors, module: str) -> float:
    """Returns the inner product <dW, dW'> of the updates of a module, in float64."""
    (a, b), (c, d) = ([factor.double() for factor in one.pairs[module]] for one in (left, right))
    return float(((b.T @ d) * (a @ c.T)).sum()) * left.scales[module] * right.scales[module]


@torch.no_grad()
def apply(model: Any, update: LoraFactors, sign: float = 1.0) -> None:
    """Adds `sign` times an update to the weights of a model in place, computed in float64.

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
    """Applies an update within a context, after which the weights are bitwise restored, also on errors."""
    modules = dict(model.named_modules())
    kept = {path: modules[path].weight.detach().clone() for path in update.pairs if path in modules}
    try:
        apply(model, update)
        yield
    finally:
        with torch.no_grad():
            for path, weight in kept.items():
                modules[path].weight.copy_(weight)
