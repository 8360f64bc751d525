"""A model without a gate, measured the way a gated one is: the base, a retrained one, a peer's checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from o3_lightning.base import BaseConfig, BaseModel, load_base
from o3_lightning.gating.model import GatedModel
from o3_lightning.gating.routing import EveryPrompt

__all__ = ["load_plain", "plain_model"]


def plain_model(base: BaseModel) -> GatedModel:
    """Returns a gated model without requests: it answers and scores as the base model does, bit for bit.

    Its `ids` are empty and its weights [B,0], so that whatever measures a gated model measures this one.
    """
    return GatedModel(base, EveryPrompt(()), {})


def load_plain(name: str | Path, config: BaseConfig, seed: int = 0) -> GatedModel:
    """Returns a checkpoint as a model without a gate.

    Args:
        name: what `base.id` may be: a folder in Hugging Face form, an id on the Hub, a GGUF file.
        config: of the run's base model; template, type and device are taken from it, so that both models are
            asked in the same way.
        seed: as in `load_base`.

    Raises:
        InputError: the model cannot be loaded.
    """
    return plain_model(load_base(replace(config, id=str(name), revision=None), seed))
