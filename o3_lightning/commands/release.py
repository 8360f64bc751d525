"""`python train.py release`: unlearns by subtracting adapters from the weights, round by round."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import ArgumentParser

from o3_lightning.commands.own_config import build_own, own_parser, read_own_arguments
from o3_lightning.config import TRAINER_DEFAULTS, to_plain
from o3_lightning.errors import InputError
from o3_lightning.release.config import ReleaseConfig

__all__ = ["main"]


@dataclass(frozen=True)
class Action:
    """What is done with a release in place of running it.

    Args:
        undo: number of a round to take out of the model; 0 for none.
        redo: number of a round to put back; 0 for none.
        export: folder in which the released model is written in Hugging Face form; empty for none.
        overlap: penalties of a study that compares forget adapters with more and less overlap with a retain
            adapter; needs given requests.
        benchmark: seeds of fictitious worlds whose first authors are released, each from a model of its own,
            given the names alone; empty for none.
        authors: of each world, for the benchmark, at least 1.
        results: file of the study's or the benchmark's results; a study's table and plot are written beside
            it.

    Raises:
        InputError: fewer than one author, or a seed below 0.
    """

    undo: int = 0
    redo: int = 0
    export: str = ""
    overlap: tuple[float, ...] = ()
    benchmark: tuple[int, ...] = ()
    authors: int = 1
    results: str = "results/release.json"

    def __post_init__(self) -> None:
        if self.authors < 1:
            raise InputError(f"expected 1 or more, got {self.authors}", field="authors")
        if any(seed < 0 for seed in self.benchmark):
            raise InputError(f"expected seeds >= 0, got {list(self.benchmark)}", field="benchmark")


def main(arguments: list[str]) -> None:
    """Runs a release or goes on with it; or undoes, redoes or exports.

    Raises:
        InputError: bad input, or the folder holds another release.
        StoreError: a round on disk is damaged.
    """
    parser = release_parser()
    namespace = read_own_arguments(parser, arguments)
    config, action = build_own(ReleaseConfig, namespace), build_own(Action, namespace)
    from o3_lightning.run_folder import RunFolder

    folder = RunFolder(config.folder)
    trainer = namespace["trainer"].as_dict()
    if (action.undo or action.redo or action.export) and not folder.path.is_dir():
        raise InputError("there is no release", path=folder.path)
    with folder.claim(to_plain(config), to_plain(ReleaseConfig())):
        if action.undo or action.redo:
            lines = switch(config, action)
        elif action.export:
            lines = [export(config, action.export)]
        elif action.overlap:
            lines = study(config, trainer, action)
        elif action.benchmark:
            lines = benchmark(config, trainer, action)
        else:
            lines = run(config, trainer)
    sys.stdout.write("\n".join(lines) + "\n")


def release_parser() -> ArgumentParser:
    """The parser of this command."""
    from lightning import Trainer

    parser = own_parser(
        "release", ReleaseConfig, "Unlearns by subtracting adapters from the weights, round by round."
    )
    parser.add_class_arguments(Action, None)
    parser.add_class_arguments(Trainer, "trainer", instantiate=False, fail_untyped=False)
    parser.set_defaults({f"trainer.{key}": value for key, value in TRAINER_DEFAULTS.items()})
    return parser


def run(config: ReleaseConfig, trainer: dict[str, object]) -> list[str]:
    """Runs the rounds and tells what each did."""
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
    """Takes rounds out of the model or puts them back."""
    from o3_lightning.release.rounds import Rounds

    rounds = Rounds(config.folder)
    for number, active in ((action.undo, False), (action.redo, True)):
        if number:
            rounds.switch(number, active)
    return [
        f"round {record['number']}: {'active' if record['active'] else 'not active'}"
        for record in rounds.records()
    ]


def study(config: ReleaseConfig, trainer: dict[str, object], action: Action) -> list[str]:
    """Compares adapters with more and less overlap."""
    from o3_lightning.release.overlap import overlap_study, overlap_table, write_study

    rows = overlap_study(config, trainer, config.folder / "overlap", action.overlap)
    write_study(rows, Path(action.results))
    return [overlap_table(rows), f"written to {action.results}"]


def benchmark(config: ReleaseConfig, trainer: dict[str, object], action: Action) -> list[str]:
    """Releases authors of several worlds."""
    from o3_lightning.release.benchmark import benchmark_release

    path = Path(action.results)
    lines = benchmark_release(config, trainer, path, seeds=action.benchmark, authors=action.authors)
    return [*lines, f"written to {path}"]


def export(config: ReleaseConfig, folder: str) -> str:
    """Writes the released model in Hugging Face form."""
    from o3_lightning.release.release import released_base

    base = released_base(config, config.folder)
    base.model.save_pretrained(folder, safe_serialization=True)
    base.tokenizer.save_pretrained(folder)
    return f"written to {folder}"
