"""Loads model and store, and runs the server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.detector.encoder import Encoder, load_configured_encoder
from o3_lightning.gating.model import GatedModel
from o3_lightning.models.base import BaseModel
from o3_lightning.run.config import TRAINER_DEFAULTS, RunConfig
from o3_lightning.run.unlearner import fit_request
from o3_lightning.serving.app import build_app
from o3_lightning.serving.audit import AuditLog
from o3_lightning.serving.background import BackgroundTraining
from o3_lightning.serving.calls import Calls
from o3_lightning.serving.config import ServeConfig
from o3_lightning.serving.engine import Engine
from o3_lightning.serving.judging import WARM_UP
from o3_lightning.serving.metrics import Metrics
from o3_lightning.serving.operator import Operator
from o3_lightning.store.store import Store

GRACE_SECONDS = 10  # beyond the time limit of a call


def make_app(
    store: Path,
    base: BaseModel,
    encoder: Encoder,
    run: RunConfig,
    config: ServeConfig,
    trainer: Mapping[str, Any] | None = None,
) -> FastAPI:
    """Returns the application for one store.

    Args:
        store: folder of the store.
        base: the base model that it was made for.
        encoder: of its detectors.
        run: settings of the gate and of new requests.
        config: settings of the server.
        trainer: options of `lightning.Trainer` for requests that are added; None takes the defaults.

    Raises:
        StoreError: the store is damaged, or made for another base model or encoder.
        InputError: the audit log cannot be written.
    """
    gate = run.gate
    if not gate.timeout_seconds:
        gate = replace(gate, timeout_seconds=config.gate_timeout_seconds)
    model = GatedModel.from_store(store, base, encoder, gate)
    model.plan([WARM_UP])
    metrics, audit = Metrics(), AuditLog(config.audit, config.audit_bytes, config.audit_files)
    calls = Calls(Engine(model, config, metrics), config, audit, metrics, config.served_model or base.id)
    token = os.environ.get(config.token_variable, "")
    if not token:
        return build_app(calls, config)
    options = TRAINER_DEFAULTS if trainer is None else trainer
    training = BackgroundTraining(store, run, options) if config.train_requests else None
    opened = Store.open(store, base.digest, encoder.digest)
    own_encoder = load_configured_encoder(run.detector)  # the served model's works meanwhile
    fit_request(own_encoder, UnlearningRequest("warm-up", (QuestionAnswer(WARM_UP, "yes"),)), run)
    return build_app(calls, config, Operator(token, opened, own_encoder, run, training))


def serve(app: FastAPI, config: ServeConfig) -> None:
    """Serves until SIGINT or SIGTERM, then finishes the open calls."""
    uvicorn.run(
        app,
        host=config.host,
        port=config.port,
        log_level="warning",
        server_header=False,
        limit_concurrency=config.max_connections,
        timeout_graceful_shutdown=int(config.timeout_seconds) + GRACE_SECONDS,
    )
