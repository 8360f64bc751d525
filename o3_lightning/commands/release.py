"""`o3-lightning release`: unlearns by subtracting adapters from the weights, round by round."""

import sys
from dataclasses import dataclass

from o3_lightning.commands.common import config_parser, read_arguments
from o3_lightning.common.errors import InputError
from o3_lightning.common.plain import to_plain
from o3_lightning.release.config import ReleaseConfig
from o3_lightning.run.parsing import build, trainer_options


@dataclass(frozen=True)
class Action:
    """An action on a release instead of running it.

    Args:
        undo: number of a round to undo; 0 for none.
        redo: number of a round to apply again; 0 for none.
        export: folder in which the released model is written in Hugging Face form; empty for none.
    """

    undo: int = 0
    redo: int = 0
    export: str = ""


def main(arguments: list[str]) -> None:
    """Runs or continues a release; or undoes or redoes a round, or exports the model."""
    parser = config_parser("release", ReleaseConfig, Action, trainer=True)
    namespace = read_arguments(parser, arguments)
    config, action = build(ReleaseConfig, namespace), build(Action, namespace)
    from o3_lightning.training.run_folder import RunFolder

    folder = RunFolder(config.folder)
    trainer = trainer_options(namespace)
    if (action.undo or action.redo or action.export) and not folder.path.is_dir():
        raise InputError("there is no release", path=folder.path)
    with folder.claim(to_plain(config)):
        if action.undo or action.redo:
            lines = switch(config, action)
        elif action.export:
            lines = [export(config, action.export)]
        else:
            lines = run(config, trainer)
    sys.stdout.write("\n".join(lines) + "\n")


def run(config: ReleaseConfig, trainer: dict[str, object]) -> list[str]:
    """Runs the rounds, and returns one line per round."""
    from o3_lightning.release.release import release

    result = release(config, trainer, config.folder)
    lines = [f"base: {numbers(result['base']['measured'])}".rstrip(": ")]
    for record in result["rounds"]:
        factors = ", ".join(f"{step['lambda']:g}" for step in record["steps"] if step["lambda"] is not None)
        lines.append(
            f"round {record['number']}: {f'lambda {factors}' if factors else 'no step'}, "
            f"{record['known_rows']} known rows, probability "
            f"{record['probability_before']:.3f} -> {record['probability_after']:.3f}, "
            f"drop {record['drop']:.4f}  {numbers(record['measured'])}".rstrip()
        )
    return [*lines, f"stopped: {result['stopped']}", f"{config.folder / 'release.json'}"]


def numbers(measured: dict[str, float]) -> str:
    """Accuracies in one line."""
    return ", ".join(f"{name} {value:.3f}" for name, value in measured.items())


def switch(config: ReleaseConfig, action: Action) -> list[str]:
    """Undoes or redoes rounds."""
    from o3_lightning.release.rounds import Rounds

    rounds = Rounds(config.folder)
    for number, active in ((action.undo, False), (action.redo, True)):
        if number:
            rounds.switch(number, active)
    return [
        f"round {record['number']}: {'active' if record['active'] else 'not active'}"
        for record in rounds.records()
    ]


def export(config: ReleaseConfig, folder: str) -> str:
    """Writes the released model in Hugging Face form."""
    from o3_lightning.release.release import released_base

    base = released_base(config, config.folder)
    base.model.save_pretrained(folder, safe_serialization=True)
    base.tokenizer.save_pretrained(folder)
    return f"written to {folder}"
