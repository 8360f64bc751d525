"""The adapters of a round: the forget adapter and the retain adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.training import FitTask, train_adapter
from o3_lightning.common.seeds import stage_seed
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.models.base import BaseModel
from o3_lightning.models.lora import LORA_CONFIG, LORA_WEIGHTS, LoraFactors
from o3_lightning.objectives.config import ObjectiveConfig, RetainObjective
from o3_lightning.release.config import ReleaseConfig
from o3_lightning.release.temperature_losses import Keep, Learn
from o3_lightning.training.trainer import build_trainer

__all__ = ["forget_adapter", "retain_adapter"]


def forget_adapter(
    base: BaseModel,
    rows: Sequence[QuestionAnswer],
    neutral: Sequence[QuestionAnswer],
    retain: LoraFactors | None,
    config: ReleaseConfig,
    folder: Path,
    trainer: Mapping[str, Any],
) -> LoraFactors:
    """Returns an adapter trained to learn the rows to forget; loads it from its folder if it exists.

    Args:
        base: the model in its current state.
        rows: the forget set, at least one row.
        neutral: rows on which the adapter must not change the model.
        retain: adapter to which it is orthogonal in the mode "orthogonal".
        config: shape, training and mode.
        folder: of the step.
        trainer: options of `lightning.Trainer`.
    """
    history = AdapterHistory()
    if retain is not None and config.mode == "orthogonal":
        history = AdapterHistory.of({"retain": retain})
    parameters: dict[str, float | int | bool | str | None] = {"temperature": config.temperature}
    keep = Keep(coefficient=config.keep, parameters=parameters) if config.keep else RetainObjective()
    objective = ObjectiveConfig(Learn(parameters=parameters), keep)
    return train_once(base, rows, neutral, history, objective, config, folder / "forget", trainer)


def retain_adapter(
    base: BaseModel,
    rows: Sequence[QuestionAnswer],
    config: ReleaseConfig,
    folder: Path,
    trainer: Mapping[str, Any],
) -> LoraFactors:
    """Returns an adapter trained to learn the retained rows; loads it from its folder if it exists."""
    objective = ObjectiveConfig(Learn(parameters={"temperature": config.temperature}))
    return train_once(base, rows, None, AdapterHistory(), objective, config, folder / "retain", trainer)


def train_once(
    base: BaseModel,
    rows: Sequence[QuestionAnswer],
    neutral: Sequence[QuestionAnswer] | None,
    history: AdapterHistory,
    objective: ObjectiveConfig,
    config: ReleaseConfig,
    folder: Path,
    trainer: Mapping[str, Any],
) -> LoraFactors:
    """Returns the saved adapter, after training it if necessary; its configuration is written last."""
    if not ((folder / LORA_WEIGHTS).is_file() and (folder / LORA_CONFIG).is_file()):
        fit = build_trainer(trainer, max_epochs=config.adapter.epochs)
        seed = stage_seed(config.seed, folder.name, folder.parent.name)
        request = UnlearningRequest(folder.name, tuple(rows))
        trained = train_adapter(
            FitTask(base, request, history, config.adapter, objective, fit, seed, retain=neutral)
        )
        trained.save(folder)
    return LoraFactors.load(folder)
