"""A change of weights in factors: exact to apply, small to store, and possible to take back.

Shapes: R rank, D input width, O output width of a module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.common.files import write_atomically

__all__ = ["Term", "Update", "applied", "apply", "combine", "joined"]

Factors = Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Term:
    """One adapter's part in an update.

    Args:
        factors: lora_A [R,D] and lora_B [O,R] per module path.
        scaling: alpha / rank.
        coefficients: factor per module path; a module that is not named counts nothing.
    """

    factors: Factors
    scaling: float
    coefficients: Mapping[str, float]

    @classmethod
    def even(cls, factors: Factors, scaling: float, coefficient: float) -> Term:
        """Returns a term with one factor for all modules."""
        return cls(factors, scaling, dict.fromkeys(factors, coefficient))


@dataclass(frozen=True)
class Update:
    """What is added to the weights.

    Args:
        factors: per module path A [R,D] and B [O,R], float32; the change is B A, signs and factors included.
    """

    factors: dict[str, tuple[Tensor, Tensor]]

    def save(self, path: Path) -> None:
        """Writes the factors as safetensors, atomically."""
        tensors = {}
        for module, (a, b) in self.factors.items():
            tensors[f"{module}.A"], tensors[f"{module}.B"] = a.contiguous(), b.contiguous()
        write_atomically(path, save(tensors, metadata={"format": "pt"}))

    @classmethod
    def load(cls, path: Path) -> Update:
        """Reads what `save` wrote.

        Raises:
            StoreError: the file is missing or damaged.
        """
        try:
            tensors = load_file(path)
            names = [key.removesuffix(".A") for key in tensors if key.endswith(".A")]
            return cls({name: (tensors[f"{name}.A"], tensors[f"{name}.B"]) for name in names})
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise StoreError(f"{path}: no readable update: {error}") from error


def combine(terms: Sequence[Term]) -> Update:
    """Returns the update sum over terms of coefficient * scaling * B A, its factors side by side.

    Stacking the factors is exact. Adding them up, as PEFT's combination "linear" does, is not: it adds the
    products of one adapter's B with another's A.

    Args:
        terms: adapters; one that is subtracted has negative coefficients.
    """
    modules = sorted({module for term in terms for module in term.factors})
    factors = {}
    for module in modules:
        parts = [
            (term.factors[module], term.scaling * term.coefficients.get(module, 0.0))
            for term in terms
            if module in term.factors
        ]
        a = torch.cat([pair[0].float() for pair, _ in parts])
        b = torch.cat([pair[1].float() * factor for pair, factor in parts], dim=1)
        factors[module] = a, b
    return Update(factors)


def joined(updates: Sequence[Update]) -> Update:
    """Returns the sum of some updates, their factors side by side."""
    modules = sorted({module for update in updates for module in update.factors})
    parts = {name: [update.factors[name] for update in updates if name in update.factors] for name in modules}
    return Update(
        {
            name: (torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs], dim=1))
            for name, pairs in parts.items()
        }
    )


@torch.no_grad()
def apply(model: Any, update: Update, sign: float = 1.0) -> None:
    """Adds an update to a model's weights in place, computed in float64.

    Args:
        model: the base model.
        update: what to add.
        sign: -1 takes it back, to the rounding of the weights' own type.

    Raises:
        InputError: the model has no such module, or its weight is quantised or of another shape.
    """
    modules = dict(model.named_modules())
    for path, (a, b) in update.factors.items():
        weight = getattr(modules.get(path), "weight", None)
        if not isinstance(weight, Tensor) or not weight.is_floating_point():
            raise InputError(f"{path}: there is no weight to change, or it is quantised")
        change = b.double() @ a.double()
        if isinstance(modules[path], Conv1D):
            change = change.T  # it keeps its weight as [D,O]
        if change.shape != weight.shape:
            raise InputError(
                f"{path}: the update is of shape {tuple(change.shape)}, the weight of {tuple(weight.shape)}"
            )
        weight.copy_(weight.double().add(change.to(weight.device), alpha=sign).to(weight.dtype))


@contextmanager
def applied(model: Any, update: Update) -> Iterator[None]:
    """Within, the model has an update; afterwards, also after an error, every bit is as before."""
    modules = dict(model.named_modules())
    kept = {path: modules[path].weight.detach().clone() for path in update.factors if path in modules}
    try:
        apply(model, update)
        yield
    finally:
        with torch.no_grad():
            for path, weight in kept.items():
                modules[path].weight.copy_(weight)
