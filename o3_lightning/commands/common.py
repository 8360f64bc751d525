"""What several commands share: their parser, the request that they work on, a run's gated model."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace
from transformers.utils.logging import disable_progress_bar

from o3_lightning.common.errors import InputError
from o3_lightning.common.program import program_name
from o3_lightning.run.config import RunConfig
from o3_lightning.run.parsing import ConfigParser, add_config_arguments, build, parse, trainer_options

if TYPE_CHECKING:
    from o3_lightning.data.requests import UnlearningRequest
    from o3_lightning.data.stream import RequestStream
    from o3_lightning.gating.model import GatedModel
    from o3_lightning.models.base import BaseModel

__all__ = [
    "RequestChoice",
    "choose_request",
    "config_parser",
    "new_parser",
    "open_gated_model",
    "read_arguments",
    "read_run",
    "request_folder",
]


@dataclass(frozen=True)
class RequestChoice:
    """Which request a command works on.

    Args:
        request: its id; empty takes the first of the stream.
    """

    request: str = ""


def new_parser(command: str, description: str) -> ArgumentParser:
    """Returns a parser that raises on a mistake instead of ending the process."""
    prog = f"{program_name()} {command}"
    return ConfigParser(prog=prog, description=description, exit_on_error=False, allow_abbrev=False)


def config_parser(command: str, description: str, *kinds: type, trainer: bool = False) -> ArgumentParser:
    """Returns a parser with the fields of some dataclasses, see `add_config_arguments`."""
    parser = new_parser(command, description)
    add_config_arguments(parser, *kinds, trainer=trainer)
    return parser


def read_arguments(parser: ArgumentParser, arguments: list[str]) -> Namespace:
    """Returns what was parsed.

    Raises:
        InputError: no arguments, an unknown key, or a value of the wrong type.
    """
    if not arguments:
        parser.print_help(sys.stdout)
        raise InputError("give --config FILE, or fields such as --name mine")
    namespace = parse(parser, arguments)
    if not sys.stderr.isatty():
        disable_progress_bar()  # type: ignore[no-untyped-call]
    return namespace


def read_run(
    command: str, description: str, arguments: list[str], *choices: type
) -> tuple[RunConfig, dict[str, Any], Namespace]:
    """Returns the configuration of a run, the trainer's options and everything that was parsed.

    Args:
        command: its name, for messages.
        description: one sentence for `--help`.
        arguments: the words after the command.
        choices: dataclasses with options of this command alone.

    Raises:
        InputError: as `read_arguments`, or a value is outside its range.
    """
    parser = config_parser(command, description, RunConfig, *choices, trainer=True)
    namespace = read_arguments(parser, arguments)
    return build(RunConfig, namespace), trainer_options(namespace), namespace


def choose_request(config: RunConfig, identifier: str) -> tuple[RequestStream, UnlearningRequest]:
    """Returns the stream of a configuration and one request of it.

    Raises:
        InputError: the stream has no such request.
    """
    from o3_lightning.data.stream import load_stream

    stream = load_stream(config.data, config.seed)
    known = {request.id: request for request in stream.requests}
    name = identifier or next(iter(known))
    if name not in known:
        raise InputError(f"no request '{name}'; there are: {', '.join(known)}", field="request")
    return stream, known[name]


def request_folder(config: RunConfig, identifier: str) -> Path:
    """Returns the folder for the detector and adapter of a request that are made outside of a store."""
    return config.folder / "single" / identifier


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
        command = f"{program_name()} run --name {config.name}"
        raise InputError(f"there is no store yet; '{command}' creates it", path=folder.store)
    base = load_base(config.base, config.seed)
    encoder = load_configured_encoder(config.detector)
    return base, GatedModel.from_store(folder.store, base, encoder, config.gate)
