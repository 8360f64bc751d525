"""`o3-lightning requests VERB`: shows and changes the requests of a store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from o3_lightning.commands import COMMANDS
from o3_lightning.common.errors import InputError
from o3_lightning.common.program import LightParser
from o3_lightning.common.shipped import find_file
from o3_lightning.common.yaml import read_mapping
from o3_lightning.store.commands import VERBS, run_store_command


def main(arguments: list[str]) -> None:
    """Runs one verb on a store and prints its result.

    Raises:
        InputError: an unknown verb or option, no such request, or no store.
        StoreError: the store is damaged.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    if not options.verb:
        parser.print_help(sys.stdout)
        return
    sys.stdout.write(run_store_command(find_store(options), options.verb, options.id).rstrip("\n") + "\n")


def build_parser() -> LightParser:
    """The parser of this command."""
    parser = LightParser("requests", COMMANDS["requests"])
    parser.add_argument("verb", nargs="?", choices=VERBS, help="what to do; list and verify need no id")
    parser.add_argument("id", nargs="?", help="the request")
    parser.add_argument("--config", help="configuration of the run that owns the store")
    parser.add_argument("--name", help="name of the run, instead of the configuration's")
    parser.add_argument("--output", help="folder that holds the runs, instead of the configuration's")
    parser.add_argument("--store", help="the folder of a store, instead of a run's")
    return parser


def find_store(options: Any) -> Path:
    """The folder of the store that the options name."""
    if options.store:
        return Path(options.store)
    values = read_mapping(find_file(options.config)) if options.config else {}
    name = options.name or values.get("name")
    if not name:
        raise InputError("name the store: --config FILE, --name RUN or --store FOLDER")
    return Path(options.output or str(values.get("output", "runs"))) / str(name) / "store"
