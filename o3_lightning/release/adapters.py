"""The adapters of a round: the forget adapter and the retain adapter; loaded if their folder holds them."""

from collections.abc import Sequence
from pathlib import Path

from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.training import FitTask, train_adapter
from o3_lightning.common.seeds import stage_seed
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.models.lora import LORA_CONFIG, LORA_WEIGHTS, LoraFactors
from o3_lightning.objectives.config import ObjectiveConfig, RetainObjective
from o3_lightning.release.context import ReleaseContext
from o3_lightning.release.temperature_losses import Keep, Learn
from o3_lightning.training.trainer import build_trainer


def forget_adapter(
    context: ReleaseContext, rows: Sequence[QuestionAnswer], retain: LoraFactors | None, folder: Path
) -> LoraFactors:
    """Returns an adapter trained to learn the rows to forget, without changing the model on neutral text.

    Args:
        context: the model in its current state, its neutral rows and the configuration.
        rows: the forget set, at least one row.
        retain: adapter to which it is orthogonal in the mode "orthogonal".
        folder: of the step.
    """
    config, history = context.config, AdapterHistory()
    if retain is not None and config.mode == "orthogonal":
        history = AdapterHistory.of({"retain": retain})
    parameters: dict[str, float | int | bool | str | None] = {"temperature": config.temperature}
    keep = Keep(coefficient=config.keep, parameters=parameters) if config.keep else RetainObjective()
    objective = ObjectiveConfig(Learn(parameters=parameters), keep)
    return train_once(context, rows, objective, folder / "forget", history, context.kept())


def retain_adapter(context: ReleaseContext, folder: Path) -> LoraFactors:
    """Returns an adapter trained to learn the neutral rows."""
    objective = ObjectiveConfig(Learn(parameters={"temperature": context.config.temperature}))
    return train_once(context, context.kept(), objective, folder / "retain", AdapterHistory())


def train_once(
    context: ReleaseContext,
    rows: Sequence[QuestionAnswer],
    objective: ObjectiveConfig,
    folder: Path,
    history: AdapterHistory,
    retain: Sequence[QuestionAnswer] | None = None,
) -> LoraFactors:
    """Returns the saved adapter, after training it if necessary; its configuration is written last."""
    if not ((folder / LORA_WEIGHTS).is_file() and (folder / LORA_CONFIG).is_file()):
        config = context.config
        fit = build_trainer(context.trainer, max_epochs=config.adapter.epochs)
        seed = stage_seed(config.seed, folder.name, folder.parent.name)
        request = UnlearningRequest(folder.name, tuple(rows))
        task = FitTask(context.base, request, history, config.adapter, objective, fit, seed, retain=retain)
        train_adapter(task).save(folder)
    return LoraFactors.load(folder)
