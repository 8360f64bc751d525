"""`o3-lightning evaluate`: measures or attacks the gated model of a run, or any checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from o3_lightning.commands.choices import EvaluateChoice
from o3_lightning.commands.common import Call, open_gated_model, run_in_processes, with_store_date
from o3_lightning.run.parsing import build

if TYPE_CHECKING:
    from o3_lightning.training.processes import Processes


def main(arguments: list[str]) -> None:
    """Writes `evaluation.json` and `.csv`, or `robustness.json`, into the run's folder and prints a table."""
    run_in_processes("evaluate", arguments, evaluate, EvaluateChoice)


def evaluate(call: Call, processes: Processes) -> list[str]:
    """Measures or attacks with all processes, writes, and returns the lines to print."""
    from o3_lightning.data.stream import load_stream
    from o3_lightning.evaluation.prompt_lengths import fit_prompts
    from o3_lightning.evaluation.reference import load_plain
    from o3_lightning.evaluation.session import EvaluationSession, slug
    from o3_lightning.evaluation.splits import splits_of
    from o3_lightning.evaluation.tables import as_lines, as_table

    config, choice = with_store_date(call.config), build(EvaluateChoice, call.namespace)
    stream = load_stream(config.data, config.seed)
    model = (
        load_plain(choice.model, config.base, config.seed, stream)
        if choice.model
        else open_gated_model(config)
    )
    stream = fit_prompts(stream, model.base, config.data.too_long, config.adapter.max_tokens)
    session = EvaluationSession(
        stream, config.evaluation, config.base, config.data, config.seed, config.folder, processes
    )
    if choice.robustness:
        content = session.attack(model)
        done = f"{content['seconds']:.1f} s; written to {session.folder / 'robustness.json'}"
        return [*as_table(content["table"]), done]
    name = f"evaluation-{slug(choice.model)}" if choice.model else "evaluation"
    content = session.measure(model, name, choice.reference)
    compared = [f"{split}: {found}" for split, found in content["comparison"].items()]
    rows = sum(len(part) for _, _, part, _ in splits_of(stream))
    done = f"{rows} prompts, {len(config.evaluation.metrics)} metrics, {content['seconds']:.1f} s"
    return [*as_lines(content), *compared, f"{done}; written to {session.folder / name}.json and .csv"]
