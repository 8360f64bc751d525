"""`o3-lightning evaluate`: measures the gated model of a run as its store stands, or any checkpoint."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from o3_lightning.commands.common import open_gated_model, read_run
from o3_lightning.run.config import RunConfig
from o3_lightning.run.parsing import build

if TYPE_CHECKING:
    from o3_lightning.evaluation.session import EvaluationSession
    from o3_lightning.gating.model import GatedModel
    from o3_lightning.training.processes import Processes

__all__ = ["EvaluateChoice", "main"]


@dataclass(frozen=True)
class EvaluateChoice:
    """What to measure, beside the configuration.

    Args:
        model: a checkpoint without a gate, as `base.id` names one, or "retrained"; empty takes the run's
            gated model.
        reference: a model that never saw the forget sets, for forget quality, privleak and reference losses:
            "retrained" (the base model trained again without them, once, where the project trained it), a
            checkpoint, or the JSON file of an earlier evaluation; empty compares with none.
        robustness: attack the model as `evaluation.robustness` says, instead of measuring it.
    """

    model: str = ""
    reference: str = ""
    robustness: bool = False


def main(arguments: list[str]) -> None:
    """Writes `evaluation.json` and `.csv`, or `robustness.json`, into the run's folder and prints a table.

    Several processes share the rows.

    Raises:
        InputError: the run has no store, or something cannot be measured.
    """
    description = "Measures the gated model of a run as its store is now, or any checkpoint."
    config, trainer_options, namespace = read_run("evaluate", description, arguments, EvaluateChoice)
    choice = build(EvaluateChoice, namespace)
    from o3_lightning.training.launch import launch

    if launch("evaluate", arguments, trainer_options):
        return
    from o3_lightning.training.processes import open_processes

    with open_processes() as processes:
        lines = evaluate(config, choice, processes)
        if processes.is_first:
            sys.stdout.write("\n".join(lines) + "\n")


def evaluate(config: RunConfig, choice: EvaluateChoice, processes: Processes) -> list[str]:
    """Measures, writes, and returns what to print."""
    from o3_lightning.data.stream import load_stream
    from o3_lightning.evaluation.session import EvaluationSession, slug
    from o3_lightning.evaluation.ungated import load_plain

    stream = load_stream(config.data, config.seed)
    model = (
        load_plain(choice.model, config.base, config.seed, stream)
        if choice.model
        else open_gated_model(config)[1]
    )
    session = EvaluationSession(
        stream, config.evaluation, config.base, config.data, config.seed, config.folder, processes
    )
    if choice.robustness:
        return attack(session, model)
    suffix = f"-{slug(choice.model)}" if choice.model else ""
    return measure(session, model, f"evaluation{suffix}", choice.reference)


def measure(session: EvaluationSession, model: GatedModel, name: str, reference: str) -> list[str]:
    """Measures every split."""
    from o3_lightning.evaluation.splits import splits_of
    from o3_lightning.evaluation.table import as_lines

    content = session.measure(model, name, reference)
    compared = [f"{split}: {found}" for split, found in content["comparison"].items()]
    rows = sum(len(part) for _, _, part, _ in splits_of(session.stream))
    done = f"{rows} prompts, {len(session.config.metrics)} metrics, {content['seconds']:.1f} s"
    return [*as_lines(content), *compared, f"{done}; written to {session.folder / name}.json and .csv"]


def attack(session: EvaluationSession, model: GatedModel) -> list[str]:
    """Tries every attack."""
    from o3_lightning.evaluation.attack_table import as_table

    content = session.attack(model)
    done = f"{content['seconds']:.1f} s; written to {session.folder / 'robustness.json'}"
    return [*as_table(content["table"]), done]
