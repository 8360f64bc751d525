"""Where a new adapter starts: in the complement of the earlier ones' space, or where the last one ended."""

from __future__ import annotations

import logging

import torch
from peft import PeftModel

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.injection import lora_factors
from o3_lightning.adapter.subspace import project_out, protected_spaces
from o3_lightning.common.errors import InputError

__all__ = ["initialise"]

logger = logging.getLogger(__name__)


@torch.no_grad()
def initialise(wrapped: PeftModel, history: AdapterHistory, config: AdapterConfig) -> int:
    """Sets the start of a fresh LoRA.

    Args:
        wrapped: a model with a LoRA as PEFT made it: lora_A random, lora_B zero.
        history: earlier adapters.
        config: its mode decides.

    Returns:
        How many modules had no complement left, so that lora_A shares directions with the weakest ones of
        earlier requests; 0 in "cumulative" mode.

    Raises:
        InputError: "cumulative" mode cannot go on from an adapter of another rank or other modules.
    """
    if not len(history):
        return 0
    if config.mode == "cumulative":
        continue_last(wrapped, history, config)
        return 0
    return start_in_complement(wrapped, history, config.rank)


def start_in_complement(wrapped: PeftModel, history: AdapterHistory, rank: int) -> int:
    """Moves lora_A into the complement of the earlier ones' rows, keeping the length of its rows."""
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
    """Copies the last adapter, scaled so that its update stays the same."""
    for path, (a, b) in lora_factors(wrapped).items():
        if path not in history.inputs or history.inputs[path].shape[1] != config.rank:
            message = f"cumulative training needs the rank and modules of the last adapter ({path} differs)"
            raise InputError(message, field="adapter.rank")
        ratio = history.scales[-1].get(path, 0.0) / (config.alpha / config.rank)
        a.copy_(history.inputs[path][-1])
        b.copy_(history.outputs[path][-1].T * ratio)
