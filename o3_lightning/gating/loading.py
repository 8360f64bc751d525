"""Reads what a gated model is made of from a store, and again what has changed since."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from o3_lightning.detector.answers import AnswerState
from o3_lightning.detector.detector import Detector
from o3_lightning.detector.encoder import Encoder, load_encoder
from o3_lightning.detector.multi import MultiDetector
from o3_lightning.gating.routing import Detectors, EveryPrompt
from o3_lightning.models.base import BaseModel, load_base
from o3_lightning.models.config import BaseConfig
from o3_lightning.models.lora import LoraFactors
from o3_lightning.models.settings import check_settings, recorded_config
from o3_lightning.store.store import Store
from o3_lightning.store.view import GatedRequest, StoreView


class Loaded(NamedTuple):
    """What was read of one request; None for what it lacks or what the gate does not use."""

    detector: Detector | None
    adapter: LoraFactors | None
    answers: AnswerState | None


class Parts(NamedTuple):
    """Detectors, adapters and hashed answers of every gated request, and the journal's head."""

    detectors: Detectors
    adapters: dict[str, LoraFactors | None]
    answers: list[AnswerState | None]
    head: str


def open_store(
    store_path: str | Path, base: BaseModel | None, encoder: Encoder | None
) -> tuple[Store, BaseModel, Encoder]:
    """Returns a store with its base model and encoder.

    Args:
        store_path: the store.
        base: the base model; None loads the one that the store names, with the settings that it records.
        encoder: the detectors' encoder; None loads the one that the store names.

    Raises:
        StoreError: the store is damaged, or made for another base model or encoder.
        InputError: the base model or the encoder cannot be loaded, or the base model was opened with other
            settings than the store records.
    """
    named = Store.open(store_path)
    recorded = named.base_settings
    base = base or load_base(*recorded_config(BaseConfig(id=named.base_id), recorded))
    check_settings(recorded, base.settings)
    encoder = encoder or load_encoder_of(named)
    return Store.open(store_path, base.digest, encoder.digest), base, encoder


def load_encoder_of(store: StoreView) -> Encoder:
    """Returns the encoder that a store names, with the pooling and the longest prompt of its first detector.

    Raises:
        StoreError: that detector is damaged.
        InputError: the encoder cannot be loaded.
    """
    gated = [record.id for record in store.records() if record.is_gated]
    settings = [Detector.load(store.detector_folder(id)).config for id in gated[:1]]
    own = {name: getattr(config, name) for config in settings for name in ("pooling", "max_tokens")}
    return load_encoder(store.encoder_id, **own)


class StoreLoader:
    """Reads the requests of one store; unchanged ones are read once.

    Args:
        store: the store.
        encoder: the detectors' encoder.
        detect: false lets every request act on every prompt.
        only: ids of the requests to read; None reads all.
    """

    def __init__(
        self, store: StoreView, encoder: Encoder, *, detect: bool = True, only: Collection[str] | None = None
    ) -> None:
        self.store, self.encoder, self.detect, self.only = store, encoder, detect, only
        self._loaded: dict[str, Loaded] = {}

    def load(self) -> Parts:
        """Returns the parts of every protected and unlearned request, as the store is now.

        Raises:
            StoreError: a file is damaged, or a detector belongs to another encoder.
        """
        head = self.store.head()  # a change between the two calls is seen again by the next load
        only, gated = self.only, self.store.gated(self._loaded)
        requests = [request for request in gated if only is None or request.id in only]
        self._loaded = {
            request.digest: self._loaded.get(request.digest) or self._read(request) for request in requests
        }
        found = {request.id: self._loaded[request.digest] for request in requests}
        detectors = {id: part.detector for id, part in found.items() if part.detector is not None}
        return Parts(
            MultiDetector(self.encoder, detectors) if self.detect else EveryPrompt(tuple(found)),
            {id: part.adapter for id, part in found.items()},
            [part.answers for part in found.values()] if self.detect else [],
            head,
        )

    def _read(self, request: GatedRequest) -> Loaded:
        return Loaded(
            Detector.load(request.detector) if self.detect else None,
            None if request.adapter is None else LoraFactors.load(request.adapter),
            AnswerState.load(request.detector) if self.detect else None,
        )
