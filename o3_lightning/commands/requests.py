"""`o3-lightning requests VERB`: adds and trains requests, shows and changes those of a store."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from o3_lightning.commands import COMMANDS
from o3_lightning.common.errors import InputError
from o3_lightning.common.program import LightParser
from o3_lightning.common.shipped import find_file
from o3_lightning.common.yaml import read_mapping
from o3_lightning.store.commands import VERBS, run_store_command

if TYPE_CHECKING:
    from o3_lightning.commands.common import Call

LIVE_VERBS = ("add", "train")  # take files of forget sets, and the fields of a configuration
CERTIFY, REMOVE, BOM = "certify", "remove", "bom"


def main(arguments: list[str]) -> None:
    """Runs one verb on a store and prints its result."""
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    if not options.verb:
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        parser.print_help(sys.stdout)
        return
    words, fields = split_words(rest)
    store = find_store(options)
    if options.verb in LIVE_VERBS:
        if not words:
            raise InputError(f"'{options.verb}' needs the files of one or more forget sets")
        change = add if options.verb == "add" else train
        lines = change(store, words, read_live_config(store, options.config, fields))
    else:
        if fields or len(words) > 1:
            parser.error(f"unrecognized arguments: {' '.join([*words[1:], *fields])}")
        if options.verb == CERTIFY:
            lines = certify(store, options, *words)
        elif options.verb == BOM and not words:
            lines = write_bom(store, options.out)
        elif options.verb == REMOVE and words and (store.parent / "config.yaml").is_file():
            lines = remove(store, *words)
        else:
            lines = iter([run_store_command(store, options.verb, *words).rstrip("\n")])
    for line in lines:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def build_parser() -> LightParser:
    """The parser of this command."""
    parser = LightParser("requests", COMMANDS["requests"])
    parser.usage = (
        "%(prog)s VERB [ID | FILE ...] [--store FOLDER | --config FILE | --name RUN] [--field value]"
    )
    parser.epilog = (
        "'add' protects the requests in FILEs at once, 'train' trains their adapters afterwards; both take "
        "the fields of a configuration, by default those of the run that owns the store. 'certify' signs "
        "what was done for a request and what the run's metrics.json and robustness.json measured. "
        "'bom' writes a bill of materials (CycloneDX). "
        "'remove' also deletes the texts of a request from the run's folder."
    )
    parser.add_argument("verb", nargs="?", choices=(*LIVE_VERBS, CERTIFY, BOM, *VERBS), help="what to do")
    add_store_options(parser)
    group = parser.add_argument_group("certify")
    group.add_argument("--key", type=Path, help="PEM file of an Ed25519 private key")
    group.add_argument("--out", type=Path, help="file to write, also by 'bom'; default: in the run's folder")
    group.add_argument("--page", type=Path, help="HTML file to write as well, for people")
    group.add_argument("--reason", default="", help="legal basis, without personal data")
    group.add_argument("--due", default="", metavar="YYYY-MM-DD", help="date by which it is to be honoured")
    return parser


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that name a store."""
    parser.add_argument("--config", help="configuration of the run that owns the store")
    parser.add_argument("--name", help="name of the run, instead of the configuration's")
    parser.add_argument("--output", help="folder that holds the runs, instead of the configuration's")
    parser.add_argument("--store", help="the folder of a store, instead of a run's")


def split_words(rest: list[str]) -> tuple[list[str], list[str]]:
    """Returns ids or files, and the fields of a configuration with their values."""
    words: list[str] = []
    fields: list[str] = []
    for word in rest:
        is_value = bool(fields) and fields[-1].startswith("--") and "=" not in fields[-1]
        (fields if word.startswith("--") or is_value else words).append(word)
    return words, fields


def find_store(options: Any) -> Path:
    """The folder of the store that the options name."""
    if options.store:
        return Path(options.store)
    values = read_mapping(find_file(options.config)) if options.config else {}
    name = options.name or values.get("name")
    if not name:
        raise InputError("name the store: --config FILE, --name RUN or --store FOLDER")
    if "\0" in f"{name}{values.get('output', '')}":
        raise InputError("expected text without NUL", field="name or output")
    return Path(options.output or str(values.get("output", "runs"))) / str(name) / "store"


def read_live_config(store: Path, config: str | None, fields: list[str], *choices: type) -> Call:
    """Returns the configuration for changes of a store, with fields of the command line.

    `config` is a file, by default that of the run that owns the store. A store without a run gets the
    defaults, with its own base model and encoder.
    """
    from o3_lightning.commands.common import read_run
    from o3_lightning.store.store import Store

    opened = Store.open(store)  # which finishes what a killed command left
    own = store.parent / "config.yaml"
    if config is None and own.is_file():
        config = str(own)
    words = ["--base.id", opened.base_id, "--detector.encoder", opened.encoder_id]
    return read_run("requests", [*(["--config", config] if config else words), *fields], *choices)


def add(store_path: Path, files: list[str], call: Call) -> Iterator[str]:
    """Protects the requests in some files, and yields a line for each as soon as it is protected."""
    from o3_lightning.data.requests import read_requests
    from o3_lightning.detector.encoder import load_configured_encoder
    from o3_lightning.run.live import protect_request
    from o3_lightning.store.store import Store

    requests = read_requests(files)
    encoder = load_configured_encoder(call.config.detector)
    store = Store.open(store_path, encoder_digest=encoder.digest)
    for request in requests:
        began = time.perf_counter()
        record = protect_request(store, encoder, request, call.config)
        yield f"{record.id}: {record.status} ({record.rows} rows, {time.perf_counter() - began:.1f} s)"


def train(store: Path, files: list[str], call: Call) -> Iterator[str]:
    """Trains the requests in some files, and yields a line for each."""
    from o3_lightning.run.live import train_requests

    for record in train_requests(store, files, call.config, call.trainer):
        yield f"{record.id}: {record.status}"


def remove(store_path: Path, id: str) -> Iterator[str]:
    """Removes a request and the texts of it that the run's folder keeps, and yields what was deleted."""
    from o3_lightning.run.cleaning import clean_run
    from o3_lightning.store.store import Store

    store = Store.open(store_path)
    if not store.history(id):
        store.latest(id)  # raises: the store never had it
    yield from clean_run(store_path.parent, id)
    yield run_store_command(store_path, REMOVE, id)


def write_bom(store_path: Path, out: Path | None) -> Iterator[str]:
    """Writes the bill of materials of a store, and yields where."""
    from o3_lightning.certificates.bom import make_bom
    from o3_lightning.common.files import write_json
    from o3_lightning.store.store import Store

    path = out or store_path.parent / "bom.cdx.json"
    bom = make_bom(Store.open(store_path))
    write_json(path, bom)
    yield f"{len(bom['components'])} models; written to {path}"


def certify(store_path: Path, options: argparse.Namespace, id: str | None = None) -> Iterator[str]:
    """Writes a signed certificate of one request, and yields what it says."""
    from o3_lightning.certificates.page import as_lines, as_page
    from o3_lightning.certificates.signing import sign_statement
    from o3_lightning.certificates.statement import make_statement
    from o3_lightning.certificates.surfaces import read_surfaces
    from o3_lightning.common.files import write_atomically
    from o3_lightning.store.store import Store

    if id is None or options.key is None:
        raise InputError(f"'{CERTIFY}' needs the id of a request, and --key")
    store = Store.open(store_path)
    record = store.record(id)
    surfaces = read_surfaces(store_path.parent, store, record) if record.is_gated else []
    statement = make_statement(store, record, surfaces, options.reason, options.due)
    text, key_id = sign_statement(statement, options.key)
    path = options.out or store_path.parent / f"certificate-{id}.json"
    write_atomically(path, text)
    if options.page:
        write_atomically(options.page, as_page(statement, key_id))
    yield from (*as_lines(statement), f"signed by key {key_id}; written to {path}")
