"""What is subtracted: all of a forget adapter, or only what it does not share with a retain adapter."""

from __future__ import annotations

import torch

from o3_lightning.models.lora import LoraFactors

__all__ = ["release_update", "shared_part"]


def release_update(
    forget: LoraFactors, retain: LoraFactors | None, mode: str, lambda_forget: float, lambda_retain: float
) -> LoraFactors:
    """Returns what a round adds to the weights: - lambda_f dW_f + lambda_r dW_r.

    Args:
        forget: the forget adapter, trained on what is to be forgotten.
        retain: the retain adapter; needed by "ext_sub" and where `lambda_retain` is not 0.
        mode: "ext_sub" removes from dW_f, module by module, its part along the shared direction.
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


def inner(left: LoraFactors, right: LoraFactors, module: str) -> float:
    """Returns <dW, dW'> of two adapters' updates of a module, in float64."""
    (a, b), (c, d) = ([factor.double() for factor in one.pairs[module]] for one in (left, right))
    return float(((b.T @ d) * (a @ c.T)).sum()) * left.scales[module] * right.scales[module]
