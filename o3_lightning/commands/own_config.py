"""Commands with a configuration of their own: the same YAML and command line, read into another dataclass."""

from __future__ import annotations

import dataclasses
import sys
from typing import TypeVar

from jsonargparse import ArgumentParser, Namespace
from transformers.utils.logging import disable_progress_bar

from o3_lightning.common.errors import InputError
from o3_lightning.run.config import ConfigFile, build, parse

__all__ = ["build_own", "own_parser", "read_own_arguments"]

Kind = TypeVar("Kind")


def own_parser(command: str, kind: type, description: str) -> ArgumentParser:
    """A parser with `--config` and every field of a dataclass."""
    parser = ArgumentParser(
        prog=f"train.py {command}", description=description, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument("--config", action=ConfigFile, help="YAML file; later options override it")
    parser.add_class_arguments(kind, None, fail_untyped=True)
    return parser


def read_own_arguments(parser: ArgumentParser, arguments: list[str]) -> Namespace:
    """Returns what was parsed.

    Raises:
        InputError: no arguments, an unknown key, or a value of the wrong type.
    """
    if not arguments:
        parser.print_help(sys.stdout)
        raise InputError("give --config FILE, or fields such as --topic 'a name'")
    if not sys.stderr.isatty():
        disable_progress_bar()  # type: ignore[no-untyped-call]
    return parse(parser, arguments)


def build_own(kind: type[Kind], namespace: Namespace) -> Kind:
    """Returns the checked configuration.

    Raises:
        InputError: a field holds a value outside its range; the message names the field.
    """
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    return kind(**{field.name: build(kind, field.name, namespace[field.name]) for field in fields})
