"""Training the adapter of one request, and saving it as plain PEFT."""

import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from peft import PeftModel
from torch import Tensor
from torch.utils.data import DataLoader

from o3_lightning.adapter.batches import Batches, Collator, StepLoader, encode
from o3_lightning.adapter.best import BestKeeper
from o3_lightning.adapter.config import BEST, AdapterConfig
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.initialisation import initialise
from o3_lightning.adapter.injection import copy_factors, injected, lora_factors
from o3_lightning.adapter.module import AdapterModule, AdapterTrainingError
from o3_lightning.adapter.sharding import is_sharding, sharded_twin
from o3_lightning.adapter.unfinished import FitStopped, Progress, StepKeeper, batches_left, read_progress
from o3_lightning.common.errors import InputError
from o3_lightning.common.files import digest_json
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.models.base import BaseModel
from o3_lightning.models.lora import LoraFactors
from o3_lightning.objectives.config import ObjectiveConfig
from o3_lightning.objectives.targets import build_texts, check_needs
from o3_lightning.training.processes import Processes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedAdapter:
    """An adapter in memory, on the CPU, in float32.

    Args:
        factors: lora_A and lora_B of every adapted module.
        peft: content of adapter_config.json.
        metrics: "loss" and "first_loss" (of the last and first batch), "steps" (of the optimizer), "seconds"
            (over all starts of the fit), "trained_parameters", "exhausted_modules"; with `keep: best`
            "kept_epoch" and "kept_score".
        curve: the loss and its parts for each batch.
    """

    factors: LoraFactors
    peft: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)
    curve: tuple[dict[str, float], ...] = ()

    def save(self, folder: Path) -> None:
        """Writes the two files that PEFT reads; the folder is created if missing."""
        self.factors.save(folder, self.peft)


@dataclass(frozen=True)
class FitTask:
    """The training of one adapter: its inputs and settings.

    Args:
        base: the model to unlearn from.
        request: what is to be forgotten; its held-out prompts are not read.
        history: adapters of earlier requests, in order.
        config: shape and training of the adapter.
        objective: the loss.
        trainer: fits once; it decides device, precision, loggers and the number of epochs.
        seed: same seed, same adapter on the same machine; any integer.
        retain: retained rows; read only if the objective needs them.
        unfinished: a file that keeps the progress of the fit, so that the same task continues after a stop,
            in any number of processes; the caller removes it. None keeps nothing.
    """

    base: BaseModel
    request: UnlearningRequest
    history: AdapterHistory
    config: AdapterConfig
    objective: ObjectiveConfig
    trainer: Trainer
    seed: int
    retain: Sequence[QuestionAnswer] | None = None
    unfinished: Path | None = None

    @property
    def key(self) -> str:
        """A digest of everything that decides the result."""
        settings = [asdict(self.config), asdict(self.objective), self.seed, self.base.digest]
        return digest_json([*settings, self.request.digest, list(self.history.ids), self.history.digest])

    def load_batches(self) -> Batches:
        """Returns this process's rows of each batch; the seed alone decides the texts and their order.

        A batch holds the fields of a `TokenBatch` for each view; it has as many retained rows as forget rows.
        """
        objective, rows, seed, trainer = self.objective, self.request.rows, self.seed, self.trainer
        max_tokens = self.config.max_tokens or self.base.context_tokens
        make = partial(encode, self.base, max_tokens=max_tokens, label_prompts=objective.prompt_tokens)
        forget, retain = make(build_texts(objective, rows, seed)), {}
        if objective.needs_retained_data and self.retain is not None:
            texts = build_texts(objective, list(self.retain), seed, retained=True)
            retain = make(texts)
        share, pad = (trainer.global_rank, trainer.world_size), self.base.tokenizer.pad_token_id
        loader: DataLoader[int] = DataLoader(
            range(len(rows)),  # type: ignore[arg-type]
            batch_size=self.config.batch_size,
            shuffle=True,
            generator=torch.Generator().manual_seed(seed),
            collate_fn=Collator(forget, retain, pad, seed, share),
        )
        return loader if trainer.accumulate_grad_batches == 1 else StepLoader(loader, trainer)

    def best_keeper(self) -> BestKeeper | None:
        """Returns the callback of `keep: best`; None for the last state."""
        if self.config.keep != BEST:
            return None
        if not self.objective.needs_retained_data or self.retain is None:
            message = "best needs retained rows to choose on; give objective.retain"
            raise InputError(message, field="adapter.keep")
        max_tokens = self.config.max_tokens or self.base.context_tokens
        rows, retain = self.request.rows, list(self.retain)
        return BestKeeper(self.base, rows, retain, max_tokens, self.config.batch_size)

    def fit(self, module: AdapterModule, loader: Batches, best: BestKeeper | None = None) -> Progress:
        """Trains the module, from where an earlier start was stopped, and returns what that had done."""
        trainer, unfinished = self.trainer, self.unfinished
        if best is not None:
            trainer.callbacks.append(best)  # type: ignore[attr-defined]
        if best is not None or trainer.limit_train_batches != 1.0:  # epochs cannot be drawn again
            unfinished = None
        factors, processes = list(module.trained), Processes(trainer.global_rank, trainer.world_size)
        done = processes.once(lambda: read_progress(unfinished, self.key))
        done.put_factors(factors)
        module.earlier_steps = done.steps
        module.curve.extend(done.curve)
        keeper = StepKeeper(factors, module.curve, done, unfinished, self.key)
        trainer.callbacks.append(keeper)  # type: ignore[attr-defined]
        try:
            trainer.fit(module, batches_left(trainer, loader, done))
        except SIGTERMException:  # Lightning's own, before the first step; it would exit with status 0
            raise FitStopped from None
        return done


def train_adapter(task: FitTask) -> TrainedAdapter:
    """Returns a request's adapter; the base model is restored afterwards, also after an error.

    Raises:
        FitStopped: SIGTERM or Ctrl-C came; the progress is kept.
        InputError: the objective lacks what it needs, or the targets match no module; before any training.
        AdapterTrainingError: the adapter is not finite, or lora_B receives no gradient (raised at the first
            step if that can be seen, otherwise at the end).
    """
    base, config, trainer = task.base, task.config, task.trainer
    check_needs(task.objective, task.request.rows, task.retain)
    best = task.best_keeper()
    start = time.perf_counter()
    twin = sharded_twin(base.model) if is_sharding(trainer) else nullcontext(base.model)
    with own_randomness(task.seed), twin as model, injected(model, config, base.id) as wrapped:
        exhausted = initialise(wrapped, task.history, config)
        loader = task.load_batches()
        steps = count_steps(trainer, len(loader), config)
        module = AdapterModule(wrapped, task.history, config, task.objective, steps, task.seed)
        module.project()
        before = copy_changes(wrapped)
        done = task.fit(module, loader, best)
        if best is not None:
            best.restore(module)
        factors = copy_factors(wrapped)
        check_trained(factors, before, copy_changes(wrapped))
        trained = sum(factor.numel() for factor in module.trained if factor.requires_grad)
        peft = peft_dictionary(wrapped)
    metrics = {
        "loss": module.curve[-1]["loss"],
        "first_loss": module.curve[0]["loss"],
        "steps": float(done.steps + trainer.global_step),
        "seconds": done.seconds + time.perf_counter() - start,
        "trained_parameters": float(trained),
        "exhausted_modules": float(exhausted),
    }
    if best is not None:
        metrics |= {"kept_epoch": float(best.epoch), "kept_score": best.score}
    return TrainedAdapter(LoraFactors.uniform(factors, config.scale), peft, metrics, tuple(module.curve))


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seeds torch's generators within the context and restores them afterwards."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def count_steps(trainer: Trainer, batches: int, config: AdapterConfig) -> int:
    """Returns the optimizer steps of the whole fit: the trainer's limits, or else the configured epochs."""
    limit = trainer.limit_train_batches
    taken = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    an_epoch = math.ceil(taken / trainer.accumulate_grad_batches)
    epochs = -1 if trainer.max_epochs is None else trainer.max_epochs
    limits = [count for count in (an_epoch * epochs, trainer.max_steps) if count >= 0]
    return max(1, min(limits, default=an_epoch * config.epochs))


def copy_changes(wrapped: PeftModel) -> dict[str, Tensor]:
    """Returns the factor of each module that starts at zero: lora_B, or lora_A beside an identity."""
    frozen = {path for path, (_, b) in lora_factors(wrapped).items() if not b.requires_grad}
    return {path: a if path in frozen else b for path, (a, b) in copy_factors(wrapped).items()}


def check_trained(
    factors: dict[str, tuple[Tensor, Tensor]], before: dict[str, Tensor], after: dict[str, Tensor]
) -> None:
    """Raises AdapterTrainingError for an adapter that is not finite or whose lora_B did not change."""
    if not all(bool(torch.isfinite(tensor).all()) for pair in factors.values() for tensor in pair):
        raise AdapterTrainingError(
            "the adapter is not finite; lower adapter.learning_rate or choose another objective"
        )
    if all(torch.equal(change, before[path]) for path, change in after.items()):
        raise AdapterTrainingError("lora_B received no gradient: nothing was learnt")


def peft_dictionary(wrapped: PeftModel) -> dict[str, Any]:
    """Returns PEFT's configuration as plain JSON, lists sorted, ready for inference."""
    values = wrapped.peft_config[wrapped.active_adapter].to_dict()
    values["inference_mode"] = True
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in values.items()}
    loaded: dict[str, Any] = json.loads(json.dumps(plain, default=str))
    return loaded
