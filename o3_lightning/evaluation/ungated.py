"""A model without a gate, measured the way a gated one is: the base, a retrained one, a peer's checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from o3_lightning.data.stream import RequestStream
from o3_lightning.gating.model import GatedModel
from o3_lightning.gating.routing import EveryPrompt
from o3_lightning.models.base import BaseConfig, BaseModel, load_base

__all__ = ["RETRAINED", "load_plain", "plain_model"]

RETRAINED = "retrained"


def plain_model(base: BaseModel) -> GatedModel:
    """Returns a gated model without requests: it answers and scores as the base model does, bit for bit.

    Its `ids` are empty and its weights [B,0], so that whatever measures a gated model measures this one.
    """
    return GatedModel(base, EveryPrompt(()), {})


def load_plain(
    name: str | Path, config: BaseConfig, seed: int = 0, stream: RequestStream | None = None
) -> GatedModel:
    """Returns a checkpoint as a model without a gate.

    Args:
        name: what `base.id` may be: a folder in Hugging Face form, an id on the Hub, a GGUF file. `RETRAINED`
            is the run's base model as if no prompt of a request, in any phrasing, had ever been in its
            training; the project trains it once where it trained the base model, and caches it.
        config: of the run's base model; template, type and device are taken from it, so that both models are
            asked in the same way.
        seed: as in `load_base`.
        stream: the requests that `RETRAINED` has never seen; other models do not need it.

    Raises:
        InputError: the model cannot be loaded, or not be trained again.
    """
    if name == RETRAINED and stream is not None:
        forgotten = [row.prompt for request in stream.requests for row in (*request.rows, *request.held_out)]
        return plain_model(replace(load_base(config, seed, forgotten), id=f"{config.id}, retrained"))
    return plain_model(load_base(replace(config, id=str(name), revision=None), seed))
