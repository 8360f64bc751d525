"""Where a new adapter starts: in the complement of the earlier adapters' spaces, or where the last one ended.

Shapes: P earlier requests, R rank, D width, K directions.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from o3_lightning.adapter.config import FULL, AdapterConfig
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.injection import lora_factors
from o3_lightning.common.errors import InputError

logger = logging.getLogger(__name__)

RELATIVE_ZERO = 1e-4  # of the largest singular value, in float32; smaller ones span nothing


@dataclass(frozen=True)
class ProtectedSpace:
    """The span of the earlier adapters of a module.

    Args:
        basis: [D, K] orthonormal columns.
        exhausted: whether their complement has fewer than R dimensions; `basis` then holds only the strongest
            D - R directions.
    """

    basis: Tensor
    exhausted: bool


def protected_spaces(history: Mapping[str, Tensor], rank: int) -> dict[str, ProtectedSpace]:
    """Returns for each module an orthonormal basis of the rows of all its earlier adapters, [P, R, D].

    At least `rank` directions, the rank of the next adapter, stay free: if the earlier adapters span more,
    their weakest directions are not protected, and the space is marked as exhausted.

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
    """Returns rows [R, D] minus their projection on orthonormal columns [D, K], twice because of rounding."""
    basis = basis.to(rows.dtype)
    for _ in range(2):
        rows = rows - (rows @ basis) @ basis.T
    return rows


@torch.no_grad()
def initialise(wrapped: PeftModel, history: AdapterHistory, config: AdapterConfig) -> int:
    """Initialises a fresh LoRA, as PEFT made it (lora_A random, lora_B zero), as `config.mode` says.

    Returns:
        The number of modules without a free complement, where lora_A shares the weakest directions of earlier
        requests; 0 in "cumulative" mode.

    Raises:
        InputError: "cumulative" mode, and the last adapter has another rank or other modules.
    """
    if config.kind == FULL:
        for pair in lora_factors(wrapped).values():
            start_full(*pair)
    if len(history) and config.mode == "cumulative":
        continue_last(wrapped, history, config)
        return 0
    if config.kind == FULL:
        return 0
    exhausted = start_in_complement(wrapped, history, config.rank) if len(history) else 0
    if config.noise:
        add_noise(wrapped, config)
    return exhausted


def start_full(a: nn.Parameter, b: nn.Parameter) -> None:
    """Makes one factor the frozen identity and the other, the change of the weight, zero."""
    fixed, change = (a, b) if a.shape[0] == a.shape[1] else (b, a)
    fixed.copy_(torch.eye(len(fixed)))
    fixed.requires_grad_(False)
    change.zero_()


def add_noise(wrapped: PeftModel, config: AdapterConfig) -> None:
    """Draws lora_B so that each module's update has `config.noise` times the norm of its weight."""
    for path, (a, b) in lora_factors(wrapped).items():
        module: Any = wrapped.get_base_model().get_submodule(path)
        weight: Tensor = module.base_layer.weight
        if not weight.is_floating_point():
            raise InputError("expected 0 for a base model in 4 bits", field="adapter.noise")
        b.normal_()
        b.mul_(config.noise * weight.norm() / (config.scale * (b @ a).norm()))


def start_in_complement(wrapped: PeftModel, history: AdapterHistory, rank: int) -> int:
    """Projects lora_A onto the complement of the earlier adapters' rows, keeping the norms of its rows."""
    spaces = protected_spaces(history.inputs, rank)
    exhausted = 0
    for path, (a, _) in lora_factors(wrapped).items():
        if path not in spaces:
            continue
        exhausted += spaces[path].exhausted
        free = project_out(a, spaces[path].basis.to(a.device))
        lengths = free.norm(dim=1, keepdim=True).clamp(min=torch.finfo(free.dtype).tiny)
        a.copy_(free * (a.norm(dim=1, keepdim=True) / lengths))
    if exhausted:
        logger.warning(
            "%d earlier adapters leave no free directions in %d modules: the new adapter shares the weakest "
            "ones there; a smaller rank leaves room for more requests",
            len(history),
            exhausted,
        )
    return exhausted


def continue_last(wrapped: PeftModel, history: AdapterHistory, config: AdapterConfig) -> None:
    """Copies the last adapter, rescaled so that its weight update stays the same."""
    for path, (a, b) in lora_factors(wrapped).items():
        if path not in history.inputs or history.inputs[path].shape[1] != len(a):
            message = f"cumulative training needs the rank and modules of the last adapter ({path} differs)"
            raise InputError(message, field="adapter.rank")
        ratio = history.scales[-1].get(path, 0.0) / config.scale
        a.copy_(history.inputs[path][-1])
        b.copy_(history.outputs[path][-1].T * ratio)
