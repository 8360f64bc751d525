"""Loads model and store, and runs the server."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from o3_lightning.common.errors import InputError
from o3_lightning.detector.detector import fit_quietly
from o3_lightning.detector.encoder import Encoder, load_configured_encoder
from o3_lightning.gating.model import GatedModel
from o3_lightning.models.base import BaseModel
from o3_lightning.run.config import TRAINER_DEFAULTS, RunConfig
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
STARTUP_FAILURE = 3  # exit status, as that of `uvicorn.run`


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
    fit_quietly(own_encoder, [WARM_UP], run.detector, seed=0)  # `fit_detector` warns of so short a request
    return build_app(calls, config, Operator(token, opened, own_encoder, run, training))


def bind_address(config: ServeConfig) -> socket.socket:
    """Returns a socket that holds the address of the server and does not listen yet.

    Raises:
        InputError: the address is in use, or is none of this machine.
    """
    holder = socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((config.host, config.port))
    except OSError as error:
        holder.close()
        message = f"cannot listen on {config.host}:{config.port}: {error.strerror or error}"
        raise InputError(message, field="port" if error.errno == errno.EADDRINUSE else "host") from error
    return holder


def serve(app: FastAPI, config: ServeConfig, address: socket.socket) -> None:
    """Serves at a bound address until SIGINT or SIGTERM, then finishes the open calls."""
    settings = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        limit_concurrency=config.max_connections,
        timeout_graceful_shutdown=int(config.timeout_seconds) + GRACE_SECONDS,
    )
    server = uvicorn.Server(settings)
    with address, suppress(KeyboardInterrupt):  # as `uvicorn.run`, which takes no bound socket
        server.run(sockets=[address])
    if not server.started:
        sys.exit(STARTUP_FAILURE)
