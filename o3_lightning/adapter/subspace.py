"""Directions that earlier adapters use, and those that are left for the next one.

Shapes: P earlier requests, R rank, D width, K directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ProtectedSpace", "project_out", "protected_spaces"]

RELATIVE_ZERO = 1e-4  # of the largest singular value, in float32; smaller ones span nothing


@dataclass(frozen=True)
class ProtectedSpace:
    """What the earlier adapters of a module span.

    Args:
        basis: [D, K] orthonormal columns.
        exhausted: whether they span so much that no complement of the rank asked for was left; `basis` then
            holds the strongest D - R directions only.
    """

    basis: Tensor
    exhausted: bool

    def to(self, device: torch.device | str) -> ProtectedSpace:
        """Returns the space on another device."""
        return ProtectedSpace(self.basis.to(device), self.exhausted)


def protected_spaces(history: Mapping[str, Tensor], rank: int) -> dict[str, ProtectedSpace]:
    """Returns for each module an orthonormal basis of the rows of all its earlier adapters.

    At least `rank` directions are always left free: where the earlier adapters span more, their weakest
    directions are given up, and the space says so.

    Args:
        history: [P, R, D] per module.
        rank: directions the next adapter needs.

    Example:
        >>> space = protected_spaces({"m": torch.eye(4)[None, :3]}, rank=1)["m"]
        >>> space.basis.shape, space.exhausted
        (torch.Size([4, 3]), False)
    """
    return {module: protect(stacked.flatten(0, 1), rank) for module, stacked in history.items()}


def protect(rows: Tensor, rank: int) -> ProtectedSpace:
    """Returns the protected space of rows [N, D]."""
    width = rows.shape[1]
    if not len(rows) or not bool(rows.any()):
        return ProtectedSpace(rows.new_zeros(width, 0), False)
    _, values, directions = torch.linalg.svd(rows.float(), full_matrices=False)
    spanned = int((values > RELATIVE_ZERO * values[0]).sum())
    kept = min(spanned, max(width - rank, 0))
    return ProtectedSpace(directions[:kept].T.contiguous(), kept < spanned)


def project_out(rows: Tensor, basis: Tensor) -> Tensor:
    """Returns rows [R, D] without their part in the span of orthonormal columns [D, K].

    The projection is done twice: once more takes out what rounding left behind.
    """
    basis = basis.to(rows.dtype)
    for _ in range(2):
        rows = rows - (rows @ basis) @ basis.T
    return rows
