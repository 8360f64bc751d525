"""What a gated model is made of, read from a store."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from o3_lightning.detector.answers import AnswerState
from o3_lightning.detector.detector import Detector
from o3_lightning.detector.encoder import Encoder, load_encoder
from o3_lightning.detector.multi import MultiDetector
from o3_lightning.gating.routing import Detectors, EveryPrompt
from o3_lightning.models.base import BaseConfig, BaseModel, load_base
from o3_lightning.models.lora import LoraFactors
from o3_lightning.store.record import UNLEARNED
from o3_lightning.store.store import Store

__all__ = ["Parts", "load_parts"]


class Parts(NamedTuple):
    """Base model, detectors, adapter and hashed answers of each request (None without), and the store."""

    base: BaseModel
    detectors: Detectors
    adapters: dict[str, LoraFactors | None]
    store: Store
    answers: list[AnswerState | None]


def load_parts(
    store_path: str | Path, base: BaseModel | None, encoder: Encoder | None, *, detect: bool
) -> Parts:
    """Returns the parts of every protected and unlearned request of a store; see `GatedModel.from_store`.

    Args:
        store_path: the store.
        base: the base model; None loads the one that the store names.
        encoder: the detectors' encoder; None loads the one that the store names.
        detect: false lets every request act on every prompt.
    """
    named = Store.open(store_path)
    base = base or load_base(BaseConfig(id=named.base_id))
    encoder = encoder or load_encoder(named.encoder_id)
    store = Store.open(store_path, base.digest, encoder.digest)
    records = [record for record in store.records() if record.is_gated]
    detectors = {record.id: Detector.load(store.detector_folder(record.id)) for record in records}
    adapters = {
        record.id: LoraFactors.load(store.adapter_folder(record.id)) if record.status == UNLEARNED else None
        for record in records
    }
    chosen = MultiDetector(encoder, detectors) if detect else EveryPrompt(tuple(detectors))
    answers = [AnswerState.load(store.detector_folder(record.id)) for record in records] if detect else []
    return Parts(base, chosen, adapters, store, answers)
