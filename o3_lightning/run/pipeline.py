"""The stages of a run and their order.

First every request is registered and protected (its detector is fitted) and the base model is measured; then
the adapter of every request is trained, unless the configuration only refuses; then all requests and the
utility are measured for each request, behind the gate of the requests up to it. Each stage is finished in the
store or in the run folder before the next begins, and has its own seed, so a run that was killed anywhere
continues with the next unfinished stage and ends with the same metrics.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from o3_lightning.adapter.diagnostics import logit_interference, overlap_matrices
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.common.errors import InputError
from o3_lightning.common.plain import to_plain
from o3_lightning.common.program import program_name
from o3_lightning.common.progress import Progress
from o3_lightning.data.requests import UnlearningRequest
from o3_lightning.data.stream import RETAIN, RequestStream
from o3_lightning.detector.detector import Detector
from o3_lightning.detector.multi import MultiDetector
from o3_lightning.evaluation.detectors import evaluate_detectors, gate_errors
from o3_lightning.evaluation.evaluate import EvaluationContext, evaluate_stream
from o3_lightning.models.settings import with_recorded_date
from o3_lightning.run.config import BASELINES, RunConfig
from o3_lightning.run.inputs import check_finished, check_unchanged, evaluating, read_inputs
from o3_lightning.run.results import BASE_STAGE, finish_run
from o3_lightning.run.reuse import PROTECT, UNLEARN, PreviousRun
from o3_lightning.run.unlearner import Unlearner
from o3_lightning.training.loggers import RunLogger
from o3_lightning.training.processes import ALONE, Processes
from o3_lightning.training.run_folder import RunFolder
from o3_lightning.training.trainer import build_trainer

logger = logging.getLogger(__name__)

UNFINISHED = "unfinished"  # folder with the progress of a stopped fit


@dataclass(frozen=True)
class RunContext:
    """What all stages of a run share."""

    config: RunConfig
    folder: RunFolder
    stream: RequestStream
    unlearner: Unlearner
    loggers: RunLogger
    previous: PreviousRun | None

    @property
    def processes(self) -> Processes:
        """The processes of the run."""
        return self.folder.processes


def run_stream(config: RunConfig, trainer: Mapping[str, Any], processes: Processes = ALONE) -> Path:
    """Unlearns every request of a configuration and writes metrics and report.

    All processes train and measure; only the first fits detectors and writes the store, the run's folder and
    the logs.

    Returns:
        The run's folder, with `metrics.json`, `report.html`, `config.yaml`, `store/` and `logs/`. A finished
        run is left as it is.

    Raises:
        InputError: bad input, or a folder that holds another run, a run of other forget sets, or one in which
            another process works.
        StoreError: the store is damaged or was made for another model.
    """
    folder = RunFolder(config.folder, processes)
    finished = folder.finished
    inputs = None if finished else read_inputs(config)  # errors are raised before anything is written
    previous = PreviousRun(config, trainer, inputs) if inputs and config.take_over else None
    if not (finished or config.refuse_only):
        build_trainer(trainer, max_epochs=config.adapter.epochs)  # for its errors
    with folder.claim({**to_plain(config), "trainer": to_plain(dict(trainer))}):
        if inputs is None:
            check_finished(folder, config)
            logger.info("%s is finished; nothing to do. Its report: %s", folder.path, folder.report_file)
            return folder.path
        base, stream, encoder = inputs
        check_unchanged(folder, stream, config.data)
        config = replace(config, base=with_recorded_date(config.base, base.settings))
        unlearner = Unlearner(base, folder.store, config, trainer, encoder=encoder, processes=processes)
        loggers = RunLogger([])
        if processes.is_first:
            loggers = RunLogger.open(config.logging, folder.logs, config.name)
        run_stages(RunContext(config, folder, stream, unlearner, loggers, previous))
        loggers.close()
    logger.info("finished: %s", folder.report_file)
    logger.info('ask it: %s ask --config %s/config.yaml "..."', program_name(), folder.path)
    return folder.path


def run_stages(context: RunContext) -> None:
    """Runs every stage that is not finished, and writes the results."""
    folder, once = context.folder, context.processes.once
    requests = {f"{number:02}-{one.id}": one for number, one in enumerate(context.stream.requests, start=1)}
    with Progress(
        "protecting requests", len(requests), "requests", shown=context.processes.is_first
    ) as progress:
        for stage, request in requests.items():
            protect(context, stage, request)
            progress.advance(1)
    began = folder.stage(BASE_STAGE, lambda: measure(context, 0))
    measured = replace(context.config.evaluation, rows=began.get("rows", 0))  # on whatever device it goes on
    context = replace(context, config=replace(context.config, evaluation=measured))
    for stage, request in requests.items():
        if not context.config.refuse_only:
            folder.stage(f"{stage}-{UNLEARN}", partial(train, context, request))
    for number, stage in enumerate(requests, start=1):
        folder.stage(f"{stage}-evaluate", partial(measure, context, number))
    folder.stage("detectors", lambda: once(lambda: measure_detectors(context)))
    if not context.config.refuse_only:
        folder.stage("overlaps", lambda: once(lambda: measure_overlaps(context)))
    once(lambda: finish_run(folder, context.stream, context.loggers, text=context.config.logging.wandb_text))


def protect(context: RunContext, stage: str, request: UnlearningRequest) -> None:
    """Registers and protects one request, and reuses its stages of the previous run."""
    folder, unlearner, previous = context.folder, context.unlearner, context.previous
    context.processes.once(lambda: check_not_removed(context, stage, request))
    unlearner.register(request)
    reused = () if previous is None or request.id not in previous.ids else previous.kinds
    if PROTECT not in reused:
        folder.stage(f"{stage}-{PROTECT}", lambda: unlearner.protect(request))
    if previous is not None and reused:
        context.processes.once(lambda: previous.give(request, unlearner.store))
        for kind in reused:
            folder.stage(f"{stage}-{kind}", partial(previous.stage, f"{stage}-{kind}"))


def check_not_removed(context: RunContext, stage: str, request: UnlearningRequest) -> None:
    """Raises InputError if a request was removed from the store after its detector was fitted."""
    store = context.unlearner.store
    done = context.folder.stage_file(f"{stage}-{PROTECT}").is_file()
    if done and request.id not in [record.id for record in store.records()]:
        raise InputError(
            f"request '{request.id}' was removed since it was unlearned; leave it out, and give those that "
            "are left another --name",
            path=store.path,
        )


def train(context: RunContext, request: UnlearningRequest) -> dict[str, Any]:
    """Trains the adapter with the run's loggers, and continues a training that was stopped."""
    return context.unlearner.unlearn(
        request,
        context.stream.utility.get(RETAIN),
        logger=context.loggers.stage(f"{request.id}/adapter"),
        unfinished=context.folder.path / UNFINISHED / f"{request.id}.safetensors",
    )


def measure(context: RunContext, count: int) -> dict[str, Any]:
    """Measures every request and the utility behind the gate of the first `count` requests."""
    requests, unlearner = context.stream.requests[:count], context.unlearner
    if requests and context.config.baseline:
        model = BASELINES[context.config.baseline](unlearner, requests)
    else:
        model = unlearner.gated_model([request.id for request in requests])
    with evaluating(context.stream):
        shared = EvaluationContext(context.processes, context.config.seed)
        return evaluate_stream(model, context.stream, context.config.evaluation, shared)


def measure_detectors(context: RunContext) -> dict[str, Any]:
    """Measures how well each detector separates its request from all other prompts, and the gate's errors."""
    stream, store = context.stream, context.unlearner.store
    fitted = {request.id: Detector.load(store.detector_folder(request.id)) for request in stream.requests}
    with evaluating(stream):
        table, weights = evaluate_detectors(MultiDetector(context.unlearner.encoder, fitted), stream)
        errors = gate_errors(stream, weights, context.config.evaluation.samples)
    return {"table": table, "weights": weights, **errors}


def measure_overlaps(context: RunContext) -> dict[str, Any]:
    """Measures the overlap between the adapters."""
    requests, unlearner = context.stream.requests, context.unlearner
    history = AdapterHistory.load({one.id: unlearner.store.adapter_folder(one.id) for one in requests})
    prompts = {request.id: request.prompts for request in requests}
    interference = logit_interference(unlearner.base, history, prompts)
    return {"matrices": {**overlap_matrices(history), "interference": interference}}
