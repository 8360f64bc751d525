"""Unlearning one request after the other: from a base model and forget sets to a store and a gated model.

The pipeline of a run, the commands for a single request and Python users all fit and train through this file.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.retain_guard import RetainGuard
from o3_lightning.adapter.training import FitTask, TrainedAdapter, train_adapter
from o3_lightning.common.errors import InputError
from o3_lightning.common.plain import to_plain
from o3_lightning.common.seeds import stage_seed
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.detector.answers import fit_answers
from o3_lightning.detector.detector import Detector, fit_detector
from o3_lightning.detector.encoder import Encoder, load_configured_encoder
from o3_lightning.detector.multi import MultiDetector
from o3_lightning.gating.gate import Gate
from o3_lightning.gating.model import GatedModel
from o3_lightning.models.base import BaseModel
from o3_lightning.models.lora import LoraFactors
from o3_lightning.models.settings import check_settings
from o3_lightning.run.config import TRAINER_DEFAULTS, RunConfig
from o3_lightning.store.record import UNLEARNED
from o3_lightning.store.store import Store
from o3_lightning.training.processes import ALONE, Processes
from o3_lightning.training.trainer import build_trainer

logger = logging.getLogger(__name__)

MOST_CHECKED = 64  # prompts; takes a third of the time of a fit to them
DECISIVE_SECTIONS = ("detector", "adapter", "objective")  # of the configuration; the store keeps them


class Unlearner:
    """Unlearns requests from a base model and keeps their detectors and adapters in a store.

    Each request goes through two stages: `protect` fits its detector, after which the gated model refuses
    matching prompts; `unlearn` trains its adapter, after which these prompts run through the adapter. A stage
    that is repeated replaces its former result. The base model's weights never change.

    Args:
        base: the base model, see `load_base`.
        store: folder of the store, created if there is none; otherwise of the same base model and encoder.
        config: seed, detector, adapter, objective and gate; other fields are not read. None takes the
            defaults.
        trainer: options of `lightning.Trainer`; None takes those of `configs/default.yaml`.
        encoder: of the detectors; None loads the configured one.
        processes: the processes that train together; the first one alone fits detectors and writes.

    Raises:
        StoreError: the store was made for another base model or encoder; also from every method, if it is
            damaged, locked or not writable, or the disk is full.
        InputError: the encoder cannot be loaded, or the base model was opened with other settings than the
            store records.
    """

    def __init__(
        self,
        base: BaseModel,
        store: str | Path,
        config: RunConfig | None = None,
        trainer: Mapping[str, Any] | None = None,
        *,
        encoder: Encoder | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.base, self.config, self.processes = base, config or RunConfig(), processes
        self.trainer = TRAINER_DEFAULTS if trainer is None else trainer
        self.encoder = encoder = encoder or load_configured_encoder(self.config.detector)
        self.store = processes.once(
            lambda: Store.create(
                store, base.id, base.digest, encoder.id, encoder.digest, base.settings, exist_ok=True
            )
        )
        check_settings(self.store.base_settings, base.settings)

    def register(self, request: UnlearningRequest) -> None:
        """Adds a request to the store, before any of its stages; no effect if it is there.

        Raises:
            InputError: another forget set is registered under this id.
        """
        self.processes.once(lambda: self.store.register(request, decisive_sections(self.config)))

    def protect(self, request: UnlearningRequest) -> dict[str, Any]:
        """Registers a request and fits its detector; from then on the gated model refuses matching prompts.

        Returns:
            `report`, the calibration of the detector.

        Raises:
            InputError: the request is revoked, another forget set is registered under its id, or the detector
                gives none of its prompts a weight on which the gate acts.
        """
        self.register(request)

        needed = self.config.gate.floor  # an adapter follows, which acts from there on
        return self.processes.once(
            lambda: {"report": fit_and_store(self.store, self.encoder, request, self.config, needed).report}
        )

    def unlearn(
        self,
        request: UnlearningRequest,
        retain: Sequence[QuestionAnswer] | None = None,
        *,
        logger: Logger | None = None,
        unfinished: Path | None = None,
    ) -> dict[str, Any]:
        """Trains the adapter of a protected request; from then on matching prompts run through it.

        Args:
            request: what is to be forgotten; its held-out prompts are not read.
            retain: rows that a retain objective trains on; not read without one.
            logger: where the training curve goes; None keeps it in the result alone.
            unfinished: a file in which a stopped training is kept, so that the same call continues it.

        Returns:
            `metrics` of the training, its `curve` (losses per batch), and `retained_rows_read`.

        Raises:
            InputError: the request is not protected, or the objective lacks what it needs.
            AdapterTrainingError: the training diverged, or reached no weight.
        """
        unlearned = [record.id for record in self.store.records() if record.status == UNLEARNED]
        history = AdapterHistory.load(
            {name: self.store.adapter_folder(name) for name in unlearned if name != request.id}
        )
        rows = retain if isinstance(retain, RetainGuard) else RetainGuard(retain or (), declared=True)
        before = rows.reads["training"]
        trained = train_request(
            self.base, request, history, self.config, self.trainer, rows, logger=logger, unfinished=unfinished
        )
        reads = rows.reads["training"] - before
        numbers = {**trained.metrics, "retained_rows_read": reads}
        save = partial(save_adapter, trained, self.base)
        self.processes.once(lambda: self.store.unlearn(request.id, save, numbers))
        if unfinished is not None:
            self.processes.once(lambda: unfinished.unlink(missing_ok=True))
        return {"metrics": trained.metrics, "curve": list(trained.curve), "retained_rows_read": reads}

    def gated_model(self, only: Collection[str] | None = None) -> GatedModel:
        """Returns the base model behind the gate of the requests that the store holds now.

        Args:
            only: ids of the requests to take; None takes all.
        """
        return GatedModel.from_store(self.store.path, self.base, self.encoder, self.config.gate, only)


def decisive_sections(config: RunConfig) -> dict[str, Any]:
    """Returns the sections of the configuration that the store keeps with a request."""
    return {name: to_plain(getattr(config, name)) for name in DECISIVE_SECTIONS}


def fit_and_store(
    store: Store, encoder: Encoder, request: UnlearningRequest, config: RunConfig, needed: float
) -> Detector:
    """Fits the detector of a registered request, stores it and returns it; see `check_recognised`."""
    detector = fit_request(encoder, request, config)
    if config.gate.detect:
        check_recognised(encoder, detector, request, config.gate.refuse_threshold, needed)
    store.protect(request.id, partial(save_detector, detector, request))
    return detector


def fit_request(encoder: Encoder, request: UnlearningRequest, config: RunConfig) -> Detector:
    """Returns the detector of a request, fitted with the seed that a run derives for it."""
    seed = stage_seed(config.seed, "detector", request.id)
    return fit_detector(encoder, request.prompts, config.detector, seed)


def check_recognised(
    encoder: Encoder, detector: Detector, request: UnlearningRequest, threshold: float, needed: float
) -> None:
    """Adds a warning to a detector's report where prompts that it was fitted to are not refused by it.

    Args:
        encoder: of the detector.
        detector: of the request.
        request: its first `MOST_CHECKED` prompts are judged.
        threshold: weight from which a prompt is refused.
        needed: weight that one of the prompts must reach; 0 counts as any weight above it.

    Raises:
        InputError: none reaches it: to store the detector would protect nothing.
    """
    weights = MultiDetector(encoder, {request.id: detector}).weights(request.prompts[:MOST_CHECKED])
    largest = float(weights.max())
    if largest < needed or not largest:
        raise InputError(
            f"'{request.id}': the detector recognises none of its {len(weights)} prompts (largest weight "
            f"{largest:.2f}, {needed:g} needed), so nothing was protected; give rows that name what they are "
            "about, or another detector.encoder or detector.preset",
            field="prompts",
        )
    if missed := int((weights < threshold).sum()):
        warning = f"{missed} of {len(weights)} forget prompts are not recognised themselves"
        detector.report["warnings"].append(warning)
        logger.warning("'%s': %s", request.id, warning)


def save_detector(detector: Detector, request: UnlearningRequest, folder: Path) -> None:
    """Writes a request's detector and the hashes of its answers, as the store keeps them."""
    detector.save(folder)
    fit_answers(request.prompts, request.answers, detector.config.salt).save(folder)


def save_adapter(trained: TrainedAdapter, base: BaseModel, folder: Path) -> None:
    """Writes an adapter and reads it back as the gate will: one that cannot be loaded is never committed.

    Raises:
        StoreError: the files are no plain LoRA adapter.
        InputError: a layer of the adapter does not fit the base model.
    """
    trained.save(folder)
    Gate(base.model, [LoraFactors.load(folder)])


def train_request(
    base: BaseModel,
    request: UnlearningRequest,
    history: AdapterHistory,
    config: RunConfig,
    trainer: Mapping[str, Any],
    retain: Sequence[QuestionAnswer] | None = None,
    *,
    logger: Logger | None = None,
    unfinished: Path | None = None,
) -> TrainedAdapter:
    """Returns the adapter of a request, trained with the seed that a run derives for it; see `FitTask`."""
    built = build_trainer(trainer, max_epochs=config.adapter.epochs, logger=logger)
    seed = stage_seed(config.seed, "adapter", request.id)
    kept = retain if config.objective.needs_retained_data else None
    return train_adapter(
        FitTask(base, request, history, config.adapter, config.objective, built, seed, kept, unfinished)
    )
