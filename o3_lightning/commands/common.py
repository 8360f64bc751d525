"""What several commands share: their parser, and opening the gated model of a run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace
from transformers.utils.logging import disable_progress_bar

from o3_lightning.common.errors import InputError
from o3_lightning.run.config import RunConfig, add_run_arguments, build_config, parse

if TYPE_CHECKING:
    from o3_lightning.gating.model import GatedModel
    from o3_lightning.models.base import BaseModel

__all__ = ["open_gated_model", "read_arguments", "run_parser"]


def run_parser(command: str, description: str) -> ArgumentParser:
    """A parser with every field of the configuration; mistakes raise instead of leaving the process."""
    parser = ArgumentParser(
        prog=f"train.py {command}", description=description, exit_on_error=False, allow_abbrev=False
    )
    add_run_arguments(parser)
    return parser


def read_arguments(
    parser: ArgumentParser, arguments: list[str]
) -> tuple[RunConfig, dict[str, Any], Namespace]:
    """Returns the configuration, the trainer's options and all that was parsed."""
    if not arguments:
        parser.print_help(sys.stdout)
        raise InputError("give --config FILE, or fields such as --name mine")
    namespace = parse(parser, arguments)
    if not sys.stderr.isatty():
        disable_progress_bar()  # type: ignore[no-untyped-call]
    config, trainer = build_config(namespace)
    return config, trainer, namespace


def open_gated_model(config: RunConfig) -> tuple[BaseModel, GatedModel]:
    """Returns the base model and the gated model of a run that has a store.

    Raises:
        InputError: the run has no store yet.
    """
    from o3_lightning.detector.encoder import load_configured_encoder
    from o3_lightning.gating.model import GatedModel
    from o3_lightning.models.base import load_base
    from o3_lightning.training.run_folder import RunFolder

    folder = RunFolder(config.folder)
    if not folder.store.is_dir():
        raise InputError(
            f"there is no store; python train.py run --name {config.name} makes one", path=folder.store
        )
    base = load_base(config.base, config.seed)
    encoder = load_configured_encoder(config.detector)
    return base, GatedModel.from_store(folder.store, base, encoder, config.gate)
