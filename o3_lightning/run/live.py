"""Requests that arrive while a model is in service: protected at once, trained when there is time."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import UnlearningRequest
from o3_lightning.data.stream import RETAIN, load_stream
from o3_lightning.detector.encoder import Encoder
from o3_lightning.run.config import RunConfig
from o3_lightning.run.pipeline import UNFINISHED
from o3_lightning.run.recorded_base import load_base_for
from o3_lightning.run.unlearner import Unlearner, decisive_sections, fit_and_store
from o3_lightning.store.record import PROTECTED, REGISTERED, REVOKED, RequestRecord
from o3_lightning.store.store import Store


def protect_request(
    store: Store, encoder: Encoder, request: UnlearningRequest, config: RunConfig
) -> RequestRecord:
    """Registers a request and fits its detector, without the base model; matching prompts are then refused.

    A request that is protected already is left as it is.

    Raises:
        InputError: another forget set has the id, the request is revoked, or the detector recognises none of
            its prompts.
        StoreError: the store is damaged, locked or not writable.
    """
    status = store.register(request, decisive_sections(config)).status
    if status == REVOKED:
        raise InputError(f"'{request.id}' is revoked; restore it to protect it", field="request_id")
    if status == REGISTERED:
        fit_and_store(store, encoder, request, config, config.gate.refuse_threshold)
    return store.record(request.id)


def train_requests(
    store_path: Path, files: Sequence[str], config: RunConfig, trainer: Mapping[str, Any]
) -> list[RequestRecord]:
    """Trains the adapters of protected requests: matching prompts run through them from then on.

    A training that was killed continues where it stopped; requests that are trained or revoked are left as
    they are. The configuration names the base model, adapter and objective, and the retained rows it needs.

    Raises:
        InputError: a request of the files is not in the store, not protected, or registered with other rows.
        StoreError: the store is damaged, locked, not writable or of another base model.
    """
    data = replace(config.data, name="jsonl", requests=tuple(files), count=0, rows_per_request=0)
    stream = load_stream(data, config.seed)
    store, path = Store.open(store_path), ", ".join(files)
    for request in stream.requests:
        record = store.record(request.id)
        if record.digest != request.digest:
            raise InputError(f"'{request.id}' is registered with other rows", path=path, field="request_id")
        if record.status == REGISTERED:
            message = f"'{request.id}' is not protected yet; add it first"
            raise InputError(message, path=path, field="request_id")
    unlearner = Unlearner(load_base_for(store_path, config), store_path, config, trainer)
    retain, unfinished = stream.utility.get(RETAIN), store_path.parent / UNFINISHED
    for request in stream.requests:
        if store.record(request.id).status == PROTECTED:
            unlearner.unlearn(request, retain, unfinished=unfinished / f"{request.id}.safetensors")
    return [store.record(request.id) for request in stream.requests]
