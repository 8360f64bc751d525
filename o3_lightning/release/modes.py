"""What is subtracted: all of a forget adapter, or only what it does not share with a retain adapter."""

from __future__ import annotations

import torch
from torch import Tensor

from o3_lightning.release.update import Factors, Term, Update, combine

__all__ = ["Adapter", "release_update", "shared_part"]

Adapter = tuple[Factors, float]  # factors per module path, and alpha / rank


def release_update(
    forget: Adapter, retain: Adapter | None, mode: str, lambda_forget: float, lambda_retain: float
) -> Update:
    """Returns what a round adds to the weights: - lambda_f dW_f + lambda_r dW_r.

    Args:
        forget: the forget adapter, trained on what is to be forgotten.
        retain: the retain adapter; needed by "ext_sub" and where `lambda_retain` is not 0.
        mode: "ext_sub" takes out of dW_f, module by module, its part along the shared direction.
        lambda_forget: lambda_f, above 0.
        lambda_retain: lambda_r, at least 0.
    """
    if retain is None:
        return combine([Term.even(*forget, -lambda_forget)])
    added = dict.fromkeys(retain[0], lambda_retain)
    taken = dict.fromkeys(forget[0], -lambda_forget)
    if mode == "ext_sub":
        for module in forget[0].keys() & retain[0].keys():
            of_forget, of_retain = shared_part(forget, retain, module)
            taken[module] = -lambda_forget * (1 - of_forget)
            added[module] += lambda_forget * of_retain
    terms = [Term(*forget, taken)]
    if any(added.values()):
        terms.append(Term(*retain, added))
    return combine(terms)


def shared_part(forget: Adapter, retain: Adapter, module: str) -> tuple[float, float]:
    """Returns the projection of dW_f onto the shared direction, as factors of dW_f and dW_r.

    The shared direction of a module is dW_f / |dW_f| + dW_r / |dW_r|, the bisector of the two updates.

    Source:
        Ext-Sub (Hu et al. 2024, "Separate the Wheat from the Chaff"), which subtracts only what an
        anti-expert does not share with an expert. Its code projects on the same bisector; here everything is
        computed from products of size rank by rank.
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


def inner(left: Adapter, right: Adapter, module: str) -> float:
    """Returns <dW, dW'> of two adapters' updates of a module."""
    (a, b), (c, d) = (pair(adapter, module) for adapter in (left, right))
    return float(((b.T @ d) * (a @ c.T)).sum()) * left[1] * right[1]


def pair(adapter: Adapter, module: str) -> tuple[Tensor, Tensor]:
    """Returns an adapter's factors of a module in float64."""
    a, b = adapter[0][module]
    return a.double(), b.double()
