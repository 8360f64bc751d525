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

from o3_lightning.adapter.diagnostics import logit_interference, overlap_matrices
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.common.errors import InputError
from o3_lightning.common.plain import to_plain
from o3_lightning.data.requests import UnlearningRequest
from o3_lightning.data.stream import RequestStream
from o3_lightning.detector.detector import Detector
from o3_lightning.detector.multi import MultiDetector
from o3_lightning.evaluation.detectors import evaluate_detectors, gate_errors
from o3_lightning.evaluation.evaluate import EvaluationContext, evaluate_stream
from o3_lightning.run.config import TRAINER_DEFAULTS, RunConfig
from o3_lightning.run.inputs import (
    RETAIN_SPLIT,
    Inputs,
    check_finished,
    check_unchanged,
    evaluating,
    read_inputs,
)
from o3_lightning.run.results import BASE_STAGE, finish_run
from o3_lightning.run.reuse import Predecessor, open_predecessor
from o3_lightning.run.unlearner import Unlearner
from o3_lightning.training.loggers import RunLogger
from o3_lightning.training.processes import ALONE, Processes
from o3_lightning.training.run_folder import RunFolder
from o3_lightning.training.trainer import build_trainer

__all__ = ["run_stream"]

logger = logging.getLogger(__name__)

UNFINISHED = "unfinished"  # folder of a run: what a stopped fit has done


@dataclass(frozen=True)
class Bench:
    """What every stage of a run works with."""

    config: RunConfig
    folder: RunFolder
    stream: RequestStream
    unlearner: Unlearner
    loggers: RunLogger
    processes: Processes
    earlier: Predecessor | None = None


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
    unlearner = Unlearner(base, folder.store, config, trainer, encoder=encoder, processes=processes)
    loggers = (
        RunLogger.open(config.logging, folder.logs, config.name) if processes.is_first else RunLogger([])
    )
    return Bench(config, folder, stream, unlearner, loggers, processes, earlier)


def unlearn(bench: Bench, number: int, request: UnlearningRequest) -> None:
    """Takes one request from registered to unlearned, or to protected where the gate only refuses."""
    stage = f"{number:02}-{request.id}"
    bench.processes.once(lambda: check_not_removed(bench, stage, request))
    bench.unlearner.register(request)
    if bench.earlier is not None and request.id in bench.earlier.ids:
        take_over(bench, bench.earlier, stage, request)
        return
    bench.folder.stage(f"{stage}-protect", lambda: bench.unlearner.protect(request))
    if not bench.config.refuse_only:
        bench.folder.stage(f"{stage}-unlearn", lambda: train(bench, request))


def check_not_removed(bench: Bench, stage: str, request: UnlearningRequest) -> None:
    """Refuses to go on with a request that was removed from the store since its detector was fitted.

    Raises:
        InputError: the store no longer holds the request.
    """
    store = bench.unlearner.store
    done = bench.folder.stage_file(f"{stage}-protect").is_file()
    if done and request.id not in [record.id for record in store.records()]:
        raise InputError(
            f"request '{request.id}' was removed since it was unlearned; leave it out, and give those that "
            "are left another --name",
            path=store.path,
        )


def take_over(bench: Bench, earlier: Predecessor, stage: str, request: UnlearningRequest) -> None:
    """Takes a request's detector and adapter, and what was noted of them, from an earlier run."""
    bench.processes.once(lambda: earlier.give(request, bench.unlearner.store))
    for kind in earlier.kinds:
        bench.folder.stage(f"{stage}-{kind}", partial(earlier.stage, f"{stage}-{kind}"))


def train(bench: Bench, request: UnlearningRequest) -> dict[str, Any]:
    """Trains the adapter with the run's loggers, and continues a training that was stopped."""
    return bench.unlearner.unlearn(
        request,
        bench.stream.utility.get(RETAIN_SPLIT),
        logger=bench.loggers.stage(f"{request.id}/adapter"),
        unfinished=bench.folder.path / UNFINISHED / f"{request.id}.safetensors",
    )


def measure(bench: Bench) -> dict[str, Any]:
    """Measures every request and the utility on the model as the store makes it now."""
    with evaluating(bench.stream):
        around = EvaluationContext(bench.processes)
        return evaluate_stream(bench.unlearner.gated_model(), bench.stream, bench.config.evaluation, around)


def measure_detectors(bench: Bench) -> dict[str, Any]:
    """Measures how well each detector tells its request from the rest, and where the gate errs."""
    store, encoder = bench.unlearner.store, bench.unlearner.encoder
    fitted = {
        request.id: Detector.load(store.detector_folder(request.id)) for request in bench.stream.requests
    }
    with evaluating(bench.stream):
        table, weights = evaluate_detectors(MultiDetector(encoder, fitted), bench.stream)
        errors = gate_errors(bench.stream, weights, bench.config.evaluation.samples)
    return {"table": table, "weights": weights, **errors}


def measure_overlaps(bench: Bench) -> dict[str, Any]:
    """Measures how far the adapters stay out of each other's way."""
    folders = {
        request.id: bench.unlearner.store.adapter_folder(request.id) for request in bench.stream.requests
    }
    history = AdapterHistory.load(folders)
    prompts = {request.id: request.prompts for request in bench.stream.requests}
    return {
        "matrices": {
            **overlap_matrices(history),
            "interference": logit_interference(bench.unlearner.base, history, prompts),
        }
    }
