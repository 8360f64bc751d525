"""Shared by several commands: parsers, processes, the choice of a request, a run's gated model."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jsonargparse import Namespace

from o3_lightning.commands import COMMANDS
from o3_lightning.commands.choices import ALWAYS_SHOWN, NOT_READ, SHOWN
from o3_lightning.common.errors import InputError
from o3_lightning.common.program import program_name
from o3_lightning.run.config import RunConfig
from o3_lightning.run.parsing import (
    ConfigParser,
    HelpAll,
    add_config_arguments,
    build,
    parse,
    trainer_options,
)

if TYPE_CHECKING:
    from o3_lightning.data.requests import UnlearningRequest
    from o3_lightning.data.stream import RequestStream
    from o3_lightning.gating.model import GatedModel
    from o3_lightning.training.processes import Processes


class Call(NamedTuple):
    """A parsed command line: the configuration, options of `lightning.Trainer`, and everything by key."""

    config: RunConfig
    trainer: dict[str, Any]
    namespace: Namespace


def new_parser(command: str = "") -> ConfigParser:
    """Returns a parser that raises an error instead of ending the process."""
    prog, description = f"{program_name()} {command}", COMMANDS.get(command)
    return ConfigParser(prog=prog, description=description, exit_on_error=False, allow_abbrev=False)


def config_parser(command: str, *kinds: type, trainer: bool = False, words: str = "") -> ConfigParser:
    """Returns a parser with the fields of dataclasses, see `add_config_arguments`.

    With `words`, their help, it also takes words that belong to no option, as `words`.
    Its `--help` shows the options of `choices.SHOWN`; `--help-all` shows every option that the command reads.
    """
    parser = fields_parser(kinds, trainer, words)
    parser.prog, parser.description = f"{program_name()} {command}", COMMANDS[command]
    parser.hidden = NOT_READ.get(command, ())
    parser.shown = (*ALWAYS_SHOWN, *SHOWN[command]) if command in SHOWN else ()
    return parser


@functools.cache
def fields_parser(kinds: tuple[type, ...], trainer: bool, words: str) -> ConfigParser:
    """Returns the parser of `config_parser`, which takes longer to build than a configuration to read."""
    parser = new_parser()
    parser.usage = "%(prog)s [--config FILE] [--field value ...]"
    parser.epilog = (
        "--help-all lists every option; --print_config prints them as YAML, with the values given."
    )
    parser.add_argument(
        "--help-all", action=HelpAll, nargs=0, default=argparse.SUPPRESS, help="Show every option and exit."
    )
    add_config_arguments(parser, *kinds, trainer=trainer)
    if words:
        parser.add_argument("words", nargs="*", type=str, help=words)
    return parser


def read_arguments(parser: ConfigParser, arguments: list[str]) -> Namespace:
    """Returns the parsed arguments.

    Raises:
        InputError: no arguments, an unknown key, one that the command does not read, or a value of the wrong
            type.
    """
    if not arguments:
        parser.print_help(sys.stdout)
        raise InputError("give --config FILE, or fields such as --name mine")
    for word in arguments:
        section = word.removeprefix("--").split("=")[0].split(".")[0]
        if word.startswith("--") and section in parser.hidden:
            raise InputError(f"'{parser.prog}' does not read '{section}'; a file may hold it, see --help-all")
    return parse(parser, arguments)


def read_run(command: str, arguments: list[str], *choices: type) -> Call:
    """Returns the configuration of a run from the words after the command.

    `choices` are dataclasses with options of this command alone.

    Raises:
        InputError: as `read_arguments`, or a value is outside its range.
    """
    parser = config_parser(command, RunConfig, *choices, trainer=True)
    namespace = read_arguments(parser, arguments)
    return Call(build(RunConfig, namespace), trainer_options(namespace), namespace)


def run_in_processes(
    command: str, arguments: list[str], work: Callable[[Call, Processes], list[str]], *choices: type
) -> None:
    """Runs a command in every process, and prints the lines that `work` returns in the first one.

    The other arguments and errors are those of `read_run`.
    """
    call = read_run(command, arguments, *choices)
    from o3_lightning.training.launch import launch
    from o3_lightning.training.processes import open_processes

    if launch(command, arguments, call.trainer):
        return
    with open_processes() as processes:
        lines = work(call, processes)
        if processes.is_first and lines:
            sys.stdout.write("\n".join(lines) + "\n")


def choose_request(config: RunConfig, identifier: str) -> tuple[RequestStream, UnlearningRequest]:
    """Returns the stream of a configuration and one request of it; InputError if there is no such request."""
    from o3_lightning.data.stream import load_stream

    stream = load_stream(config.data, config.seed)
    known = {request.id: request for request in stream.requests}
    name = identifier or next(iter(known))
    if name not in known:
        raise InputError(f"no request '{name}'; there are: {', '.join(known)}", field="request")
    return stream, known[name]


def request_folder(config: RunConfig, identifier: str) -> Path:
    """Returns the folder of a request's detector and adapter outside of a store."""
    return config.folder / "single" / identifier


def with_store_date(config: RunConfig) -> RunConfig:
    """Returns the configuration with the date that the run's store records for chat templates."""
    from o3_lightning.models.settings import with_recorded_date
    from o3_lightning.store.view import read_settings
    from o3_lightning.training.run_folder import RunFolder

    recorded = read_settings(RunFolder(config.folder).store)
    return replace(config, base=with_recorded_date(config.base, recorded))


def open_gated_model(config: RunConfig) -> GatedModel:
    """Returns the gated model of a run; InputError if the run has no store yet."""
    from o3_lightning.detector.encoder import load_configured_encoder
    from o3_lightning.gating.model import GatedModel
    from o3_lightning.run.recorded_base import load_base_for
    from o3_lightning.store.verify import STORE
    from o3_lightning.training.run_folder import RunFolder

    folder = RunFolder(config.folder)
    if not (folder.store / STORE).is_file():  # a base may take minutes to make
        command = f"{program_name()} run --name {config.name}"
        raise InputError(f"there is no store yet; '{command}' creates it", path=folder.store)
    base = load_base_for(folder.store, config)
    encoder = load_configured_encoder(config.detector)
    return GatedModel.from_store(folder.store, base, encoder, config.gate)
