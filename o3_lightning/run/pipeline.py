"""The continual loop: the only file that knows the order of stages.

For each request: register, protect (fit its detector), unlearn (train its adapter, unless the
configuration only refuses), then measure every request and the utility through the gate. Each stage is
finished in the store or in the run folder before the next begins, and draws its randomness from its own
seed, so a run that was killed anywhere continues with the next unfinished stage and ends with the same
metrics.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from o3_lightning.adapter.diagnostics import overlap_matrices
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.interference import logit_interference
from o3_lightning.adapter.training import train_adapter
from o3_lightning.common.errors import InputError
from o3_lightning.common.plain import to_plain
from o3_lightning.common.seeds import stage_seed
from o3_lightning.data.requests import UnlearningRequest
from o3_lightning.data.stream import RequestStream
from o3_lightning.detector.detector import Detector, fit_detector
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.multi import MultiDetector
from o3_lightning.evaluation.detectors import evaluate_detectors, gate_errors
from o3_lightning.evaluation.evaluate import EvaluationContext, evaluate_stream
from o3_lightning.gating.model import GatedModel
from o3_lightning.models.base import BaseModel
from o3_lightning.run.config import TRAINER_DEFAULTS, RunConfig
from o3_lightning.run.inputs import (
    RETAIN_SPLIT,
    Inputs,
    check_finished,
    check_unchanged,
    evaluating,
    read_inputs,
    training_reads,
)
from o3_lightning.run.results import BASE_STAGE, finish_run
from o3_lightning.run.reuse import Predecessor, open_predecessor, save_detector
from o3_lightning.store.record import UNLEARNED
from o3_lightning.store.store import Store
from o3_lightning.training.processes import ALONE, Processes
from o3_lightning.training.run_folder import RunFolder
from o3_lightning.training.trainer import RunLogger, build_trainer

__all__ = ["run_stream"]

logger = logging.getLogger(__name__)

UNFINISHED = "unfinished"  # folder of a run: what a stopped fit has done


@dataclass(frozen=True)
class Bench:
    """What every stage of a run works with."""

    config: RunConfig
    trainer: Mapping[str, Any]
    folder: RunFolder
    stream: RequestStream
    base: BaseModel
    encoder: Encoder
    store: Store
    loggers: RunLogger
    processes: Processes
    earlier: Predecessor | None = None

    def gated(self) -> GatedModel:
        """The model with every request that the store holds now."""
        return GatedModel.from_store(self.store.path, self.base, self.encoder, self.config.gate)


def run_stream(config: RunConfig, trainer: Mapping[str, Any], processes: Processes = ALONE) -> Path:
    """Unlearns every request of a configuration and writes metrics and report.

    Args:
        config: the run.
        trainer: options of `lightning.Trainer`, handed through.
        processes: who work on the run together. All train and measure; the first one alone fits detectors,
            writes the store, the run's folder and the logs.

    Returns:
        The run's folder, with `metrics.json`, `report.html`, `config.yaml`, `store/` and `logs/`. A finished
        run is left as it is.

    Raises:
        InputError: bad input, a folder that holds another run, or a run of other forget sets, or one in which
            another process works.
        StoreError: the store is damaged or was made for another model.
    """
    folder = RunFolder(config.folder, processes)
    finished = folder.finished
    inputs = None if finished else read_inputs(config)  # bad input is told before anything is written
    earlier = open_predecessor(config, trainer, inputs) if inputs else None
    if not (finished or config.refuse_only):
        build_trainer(trainer, max_epochs=config.adapter.epochs)  # so are options that it refuses
    defaults = {**to_plain(RunConfig()), "trainer": TRAINER_DEFAULTS}
    with folder.claim({**to_plain(config), "trainer": to_plain(dict(trainer))}, defaults):
        if inputs is None:
            check_finished(folder, config)
            logger.info("%s is finished; nothing to do. Its report: %s", folder.path, folder.report_file)
            return folder.path
        check_unchanged(folder, inputs.stream, config.data)
        bench = open_bench(config, trainer, folder, inputs, earlier)
        folder.stage(BASE_STAGE, lambda: measure(bench))
        for number, request in enumerate(bench.stream.requests, start=1):
            unlearn(bench, number, request)
            folder.stage(f"{number:02}-{request.id}-evaluate", lambda: measure(bench))
        folder.stage("detectors", lambda: processes.once(lambda: measure_detectors(bench)))
        if not config.refuse_only:
            folder.stage("overlaps", lambda: processes.once(lambda: measure_overlaps(bench)))
        processes.once(lambda: finish_run(folder, bench.stream, bench.loggers))
        bench.loggers.close()
    logger.info("finished: %s", folder.report_file)
    return folder.path


def open_bench(
    config: RunConfig,
    trainer: Mapping[str, Any],
    folder: RunFolder,
    inputs: Inputs,
    earlier: Predecessor | None = None,
) -> Bench:
    """Opens the store and the loggers of a run."""
    base, stream, encoder = inputs
    processes = folder.processes
    store = processes.once(
        lambda: Store.open_or_create(folder.store, base.id, base.digest, encoder.id, encoder.digest)
    )
    loggers = (
        RunLogger.open(config.logging, folder.logs, config.name) if processes.is_first else RunLogger([])
    )
    return Bench(config, trainer, folder, stream, base, encoder, store, loggers, processes, earlier)


def unlearn(bench: Bench, number: int, request: UnlearningRequest) -> None:
    """Takes one request from registered to unlearned, or to protected where the gate only refuses."""
    stage = f"{number:02}-{request.id}"
    bench.processes.once(lambda: register(bench, stage, request))
    if bench.earlier is not None and request.id in bench.earlier.ids:
        take_over(bench, bench.earlier, stage, request)
        return
    bench.folder.stage(f"{stage}-protect", lambda: bench.processes.once(lambda: protect(bench, request)))
    if not bench.config.refuse_only:
        bench.folder.stage(f"{stage}-unlearn", lambda: train(bench, request))


def register(bench: Bench, stage: str, request: UnlearningRequest) -> None:
    """Notes a request in the store.

    Raises:
        InputError: its stages are done and the store no longer holds it, or holds other rows by its name.
    """
    done = bench.folder.stage_file(f"{stage}-protect").is_file()
    if done and request.id not in [record.id for record in bench.store.records()]:
        raise InputError(
            f"request '{request.id}' was removed since it was unlearned; leave it out, and give those that "
            "are left another --name",
            path=bench.store.path,
        )
    sections = ("detector", "adapter", "objective")
    bench.store.register(request, {name: to_plain(getattr(bench.config, name)) for name in sections})


def take_over(bench: Bench, earlier: Predecessor, stage: str, request: UnlearningRequest) -> None:
    """Takes a request's detector and adapter, and what was noted of them, from an earlier run."""
    bench.processes.once(lambda: earlier.give(request, bench.store))
    for kind in earlier.kinds:
        bench.folder.stage(f"{stage}-{kind}", partial(earlier.stage, f"{stage}-{kind}"))


def protect(bench: Bench, request: UnlearningRequest) -> dict[str, Any]:
    """Fits the detector: from here on matching prompts are refused."""
    seed = stage_seed(bench.config.seed, "detector", request.id)
    detector = fit_detector(bench.encoder, request.prompts, bench.config.detector, seed)
    bench.store.protect(request.id, partial(save_detector, detector, request))
    return {"report": detector.report}


def train(bench: Bench, request: UnlearningRequest) -> dict[str, Any]:
    """Trains the adapter: from here on matching prompts run through it."""
    config = bench.config
    earlier = [record.id for record in bench.store.records() if record.status == UNLEARNED]
    history = AdapterHistory.load(
        {name: bench.store.adapter_folder(name) for name in earlier if name != request.id}
    )
    trainer = build_trainer(
        bench.trainer, max_epochs=config.adapter.epochs, logger=bench.loggers.stage(f"{request.id}/adapter")
    )
    seed = stage_seed(config.seed, "adapter", request.id)
    retain = bench.stream.utility.get(RETAIN_SPLIT) if config.objective.needs_retained_data else None
    unfinished = bench.folder.path / UNFINISHED / f"{request.id}.safetensors"
    before = training_reads(bench.stream)
    trained = train_adapter(
        bench.base, request, history, config.adapter, config.objective, trainer, seed, retain, unfinished
    )
    reads = training_reads(bench.stream) - before
    numbers = {**trained.metrics, "retained_rows_read": reads}
    bench.processes.once(lambda: bench.store.unlearn(request.id, trained.save, numbers))
    bench.processes.once(lambda: unfinished.unlink(missing_ok=True))
    return {"metrics": trained.metrics, "curve": list(trained.curve), "retained_rows_read": reads}


def measure(bench: Bench) -> dict[str, Any]:
    """Measures every request and the utility on the model as the store makes it now."""
    with evaluating(bench.stream):
        around = EvaluationContext(bench.processes)
        return evaluate_stream(bench.gated(), bench.stream, bench.config.evaluation, around)


def measure_detectors(bench: Bench) -> dict[str, Any]:
    """Measures how well each detector tells its request from the rest, and where the gate errs."""
    fitted = {
        request.id: Detector.load(bench.store.detector_folder(request.id))
        for request in bench.stream.requests
    }
    with evaluating(bench.stream):
        table, weights = evaluate_detectors(MultiDetector(bench.encoder, fitted), bench.stream)
        errors = gate_errors(bench.stream, weights, bench.config.evaluation.samples)
    return {"table": table, "weights": weights, **errors}


def measure_overlaps(bench: Bench) -> dict[str, Any]:
    """Measures how far the adapters stay out of each other's way."""
    folders = {request.id: bench.store.adapter_folder(request.id) for request in bench.stream.requests}
    history = AdapterHistory.load(folders)
    prompts = {request.id: request.prompts for request in bench.stream.requests}
    return {
        "matrices": {
            **overlap_matrices(history),
            "interference": logit_interference(bench.base, history, prompts),
        }
    }
