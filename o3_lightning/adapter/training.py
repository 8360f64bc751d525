"""Training the adapter of one request, and saving it as plain PEFT."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from peft import PeftModel
from torch import Tensor

from o3_lightning.adapter.batches import build_loader
from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.initialisation import initialise
from o3_lightning.adapter.injection import copy_factors, injected
from o3_lightning.adapter.module import AdapterModule, AdapterTrainingError
from o3_lightning.adapter.sharding import is_sharding, sharded_twin
from o3_lightning.adapter.steps import Batches, StepLoader
from o3_lightning.adapter.unfinished import FitStopped, Progress, StepKeeper, batches_left, read_progress
from o3_lightning.common.files import digest_json
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.models.base import BaseModel
from o3_lightning.models.lora import LoraFactors
from o3_lightning.objectives.config import ObjectiveConfig
from o3_lightning.objectives.targets import check_needs

__all__ = ["AdapterTrainingError", "TrainedAdapter", "train_adapter"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedAdapter:
    """An adapter in memory, on the CPU, in float32.

    Args:
        factors: lora_A and lora_B of every adapted module.
        peft: content of adapter_config.json.
        metrics: numbers about the training, e.g. "loss", "seconds" (of a fit that was stopped, since it went
            on), "steps" (of the optimizer), "trained_parameters".
        curve: per batch the loss and its parts.
    """

    factors: LoraFactors
    peft: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)
    curve: tuple[dict[str, float], ...] = ()

    def save(self, folder: Path) -> None:
        """Writes the two files that PEFT reads; the folder is created if missing."""
        self.factors.save(folder, self.peft)


def train_adapter(
    base: BaseModel,
    request: UnlearningRequest,
    history: AdapterHistory,
    config: AdapterConfig,
    objective: ObjectiveConfig,
    trainer: Trainer,
    seed: int,
    retain: Sequence[QuestionAnswer] | None = None,
    unfinished: Path | None = None,
) -> TrainedAdapter:
    """Returns a request's adapter; the base model is afterwards what it was before, also after an error.

    Args:
        base: the model to unlearn from.
        request: what is to be forgotten; its held-out prompts are not read.
        history: adapters of earlier requests, in order.
        config: shape and training of the adapter.
        objective: what it is trained to do.
        trainer: fits once; it decides device, precision, loggers and the number of epochs.
        seed: same seed, same adapter on the same machine; 0 is as good as any.
        retain: retained rows; read only if the objective asks for them.
        unfinished: a file that keeps what the fit has done, so that the same call goes on after a stop, in
            any number of processes; it is left to the caller to remove it. None keeps nothing.

    Raises:
        FitStopped: SIGTERM came; what was done is kept.
        InputError: the objective lacks what it needs, or the targets fit no module; before any training.
        AdapterTrainingError: the adapter is not finite, or lora_B receives no gradient (told at the first
            step where that can be seen, at the end elsewhere).
    """
    check_needs(objective, request.rows, retain)
    start = time.perf_counter()
    twin = sharded_twin(base.model) if is_sharding(trainer) else nullcontext(base.model)
    with own_randomness(seed), twin as model, injected(model, config, base.id) as wrapped:
        exhausted = initialise(wrapped, history, config)
        loader = load_batches(base, request, retain, config, objective, trainer, seed)
        module = AdapterModule(
            wrapped, history, config, objective, count_steps(trainer, len(loader), config), seed
        )
        module.project()
        before = {path: b.clone() for path, (_, b) in copy_factors(wrapped).items()}
        key = fit_key(base, request, history, config, objective, seed)
        done = fit(trainer, module, loader, unfinished, key)
        check_interrupted(trainer)
        factors = copy_factors(wrapped)
        check_trained(factors, before)
        peft = peft_dictionary(wrapped)
    metrics = {
        "loss": module.curve[-1]["loss"],
        "first_loss": module.curve[0]["loss"],
        "steps": float(done.steps + trainer.global_step),
        "seconds": done.seconds + time.perf_counter() - start,
        "trained_parameters": float(sum(a.numel() + b.numel() for a, b in factors.values())),
        "exhausted_modules": float(exhausted),
    }
    scale = config.alpha / config.rank
    return TrainedAdapter(LoraFactors.uniform(factors, scale), peft, metrics, tuple(module.curve))


def load_batches(
    base: BaseModel,
    request: UnlearningRequest,
    retain: Sequence[QuestionAnswer] | None,
    config: AdapterConfig,
    objective: ObjectiveConfig,
    trainer: Trainer,
    seed: int,
) -> Batches:
    """Returns this process's batches, with the counts of their steps where a step has several."""
    loader = build_loader(
        base,
        request.rows,
        retain,
        objective,
        batch_size=config.batch_size,
        max_tokens=config.max_tokens or base.context_tokens,
        seed=seed,
        share=(trainer.global_rank, trainer.world_size),
    )
    return loader if trainer.accumulate_grad_batches == 1 else StepLoader(loader, trainer)


def fit(
    trainer: Trainer, module: AdapterModule, loader: Batches, unfinished: Path | None, key: str
) -> Progress:
    """Trains, from where an earlier start was stopped, and returns what that had done."""
    if trainer.limit_train_batches != 1.0:  # epochs are then no whole passes, and cannot be drawn again
        unfinished = None
    factors, done = list(module.trained), Progress()
    if unfinished is not None:
        done = read_progress(unfinished, key, first=trainer.is_global_zero, processes=trainer.world_size)
    done.put_factors(factors)
    module.earlier_steps = done.steps
    module.curve.extend(done.curve)
    trainer.callbacks.append(StepKeeper(factors, module.curve, done, unfinished, key))  # type: ignore[attr-defined]
    try:
        trainer.fit(module, batches_left(trainer, loader, done))
    except SIGTERMException:  # Lightning's own, before the first step; it would leave with status 0
        raise FitStopped from None
    return done


def fit_key(
    base: BaseModel,
    request: UnlearningRequest,
    history: AdapterHistory,
    config: AdapterConfig,
    objective: ObjectiveConfig,
    seed: int,
) -> str:
    """Tells fits apart by all that decides them."""
    settings = [asdict(config), asdict(objective), seed, base.digest, request.digest]
    return digest_json([*settings, list(history.ids), history.digest])


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seeds torch inside and puts its generators back outside."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def count_steps(trainer: Trainer, batches: int, config: AdapterConfig) -> int:
    """Returns how many optimizer steps the fit will take, for the learning rate.

    Args:
        trainer: its limits on epochs, steps and batches count, where it has any.
        batches: of the loader.
        config: its epochs count where the trainer has no limit.
    """
    limit = trainer.limit_train_batches
    taken = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    an_epoch = math.ceil(taken / trainer.accumulate_grad_batches)
    epochs = -1 if trainer.max_epochs is None else trainer.max_epochs
    limits = [count for count in (an_epoch * epochs, trainer.max_steps) if count >= 0]
    return max(1, min(limits, default=an_epoch * config.epochs))


def check_interrupted(trainer: Trainer) -> None:
    """Passes an interrupt on, which Lightning otherwise turns into an early but normal end."""
    if trainer.interrupted:
        raise KeyboardInterrupt


def check_trained(factors: dict[str, tuple[Tensor, Tensor]], before: dict[str, Tensor]) -> None:
    """Refuses an adapter that is not finite or whose lora_B never moved."""
    if not all(bool(torch.isfinite(tensor).all()) for pair in factors.values() for tensor in pair):
        raise AdapterTrainingError(
            "the adapter is not finite; lower adapter.learning_rate or choose another objective"
        )
    if all(torch.equal(b, before[path]) for path, (_, b) in factors.items()):
        raise AdapterTrainingError("lora_B received no gradient: nothing was learnt")


def peft_dictionary(wrapped: PeftModel) -> dict[str, Any]:
    """Returns PEFT's configuration as plain JSON, lists sorted, ready for inference."""
    values = wrapped.peft_config[wrapped.active_adapter].to_dict()
    values["inference_mode"] = True
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in values.items()}
    loaded: dict[str, Any] = json.loads(json.dumps(plain, default=str))
    return loaded
