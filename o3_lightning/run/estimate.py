"""Estimate of the time and memory of a run, extrapolated from a few measured steps of it."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from lightning import Callback

from o3_lightning.adapter.diagnostics import logit_interference, overlap_matrices
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.training import TrainedAdapter
from o3_lightning.common.environment import peak_memory_mib
from o3_lightning.common.plain import evenly_spaced
from o3_lightning.data.requests import UnlearningRequest
from o3_lightning.data.stream import RETAIN, RequestStream
from o3_lightning.detector.multi import MultiDetector
from o3_lightning.evaluation.evaluate import evaluate_split
from o3_lightning.evaluation.reference import plain_model
from o3_lightning.evaluation.splits import splits_of
from o3_lightning.models.base import BaseModel
from o3_lightning.run.config import RunConfig
from o3_lightning.run.inputs import evaluating, read_inputs
from o3_lightning.run.recorded_base import load_base_for
from o3_lightning.run.reuse import PROTECT, UNLEARN, PreviousRun
from o3_lightning.run.unlearner import fit_request, train_request
from o3_lightning.training.launch import processes_wanted
from o3_lightning.training.run_folder import RunFolder
from o3_lightning.training.trainer import as_list

STEPS = 4  # of the adapter; the first, a warm-up, is not counted
SAMPLE = 24  # rows measured in each split; a row's cost differs between splits
MEBIBYTES = 2**20

Value = TypeVar("Value")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Estimate:
    """The expected cost of a run.

    Args:
        seconds: by kind of stage: "load", "detectors", "adapters", "evaluation" and "overlaps".
        memory_mib: peak of a process, on the GPU if it trains on one, otherwise of the host.
    """

    seconds: Mapping[str, float]
    memory_mib: float

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())


class StepClock(Callback):
    """Records when each training step begins and when the last one ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        """Notes the time."""
        self.times.append(time.perf_counter())

    def on_train_end(self, *_: Any) -> None:
        """Notes the time."""
        self.times.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Mean time of a step, without the first one if there are others."""
        kept = self.times[1:] if len(self.times) > 2 else self.times
        return (kept[-1] - kept[0]) / (len(kept) - 1)


def estimate_run(config: RunConfig, trainer: Mapping[str, Any]) -> Estimate:
    """Measures a few steps of a run on this machine and extrapolates; writes no run.

    What is reused from an earlier run (`take_over`) does not count, nor does teaching the base model
    (`base.finetune_on`), which is done now if it has not been: it is cached for every run.

    Raises:
        InputError: as `run_stream`.
    """
    if config.base.finetune_on.teaches:
        load_base_for(RunFolder(config.folder).store, config)
    start = time.perf_counter()
    inputs = read_inputs(config)
    base, stream, encoder = inputs
    previous = PreviousRun(config, trainer, inputs) if config.take_over else None
    loaded = time.perf_counter() - start
    reused = dict.fromkeys(previous.kinds, previous.ids) if previous else {}
    fitted, trained_on = (
        [one for one in stream.requests if one.id not in reused.get(kind, ())] for kind in (PROTECT, UNLEARN)
    )
    request = max(stream.requests, key=lambda one: len(one.rows))
    logger.info("fitting the detector of %s ...", request.id)
    fit, detector = timed(lambda: fit_request(encoder, request, config))
    prompts = evenly_spaced(request.prompts, SAMPLE)
    gate, _ = timed(lambda: MultiDetector(encoder, {request.id: detector}).weights(prompts))
    step, overlaps = 0.0, 0.0
    if not config.refuse_only:
        logger.info("training %d steps ...", STEPS)
        step, trained = measure_step(config, trainer, base, stream, request)
        overlaps = measure_overlap(base, trained, stream, request)
    logger.info("answering up to %d rows of each split ...", SAMPLE)
    once, prompt = measure_rows(config, base, stream), gate / len(prompts)
    processes = processes_wanted(trainer)
    steps = sum(steps_of(config, one) for one in trained_on)
    limit = config.evaluation.rows_on(base.model.device.type)
    sizes = [len(part) for _, _, part, _ in splits_of(stream)]
    asked = sum(min(size, limit or size) for size in sizes)
    probes = sum(sizes) + sum(map(len, stream.probes.values()))
    count, fitted_rows = len(stream.requests), sum(len(one.rows) for one in fitted)
    seconds = {
        "load": loaded,
        "detectors": fit * fitted_rows / len(request.rows),
        "adapters": step * steps / processes,
        "evaluation": (once * (1 + count) + prompt * asked * count) / processes + prompt * probes,
        "overlaps": overlaps,
    }
    gpu = torch.cuda.is_available()
    return Estimate(seconds, torch.cuda.max_memory_allocated() / MEBIBYTES if gpu else peak_memory_mib())


def steps_of(config: RunConfig, request: UnlearningRequest) -> int:
    """Returns the number of optimizer steps of one request."""
    return math.ceil(len(request.rows) / config.adapter.batch_size) * config.adapter.epochs


def timed(work: Callable[[], Value]) -> tuple[float, Value]:
    """Returns the seconds that some work takes, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def measure_step(
    config: RunConfig,
    trainer: Mapping[str, Any],
    base: BaseModel,
    stream: RequestStream,
    request: UnlearningRequest,
) -> tuple[float, TrainedAdapter]:
    """Returns the seconds of one optimizer step on one device, and the adapter after a few steps."""
    clock = StepClock()
    callbacks = [*as_list(trainer.get("callbacks")), clock]
    alone = {**trainer, "devices": 1, "strategy": "auto", "max_steps": STEPS, "callbacks": callbacks}
    retain = stream.utility.get(RETAIN)
    trained = train_request(base, request, AdapterHistory(), config, alone, retain)
    return clock.seconds, trained


def measure_overlap(
    base: BaseModel, trained: TrainedAdapter, stream: RequestStream, request: UnlearningRequest
) -> float:
    """Returns the seconds of comparing all adapters with each other.

    Angles grow with the square of the requests; each request's prompts run without and with every adapter.
    """
    history = AdapterHistory.of({request.id: trained.factors})
    prompts = evenly_spaced(request.prompts, SAMPLE)
    angles, _ = timed(lambda: overlap_matrices(history))
    passes, _ = timed(lambda: logit_interference(base, history, {request.id: prompts}))
    once = passes / (2 * len(prompts))
    count = len(stream.requests)
    return angles * count**2 + once * (1 + count) * sum(len(one.rows) for one in stream.requests)


def measure_rows(config: RunConfig, base: BaseModel, stream: RequestStream) -> float:
    """Returns the seconds of answering and scoring all rows once, from a sample of each split."""
    model, seconds = plain_model(base), 0.0
    limit = config.evaluation.rows_on(base.model.device.type)
    with evaluating(stream):
        for _, name, rows, kind in splits_of(stream):
            chosen = evenly_spaced(rows, SAMPLE)
            start = time.perf_counter()
            evaluate_split(model, chosen, config.evaluation, kind, name)
            seconds += (time.perf_counter() - start) * min(len(rows), limit or len(rows)) / len(chosen)
    return seconds
