"""`o3-lightning export DIR --target ENGINE`: hands the requests of a store over to another engine."""

import sys
from pathlib import Path

from o3_lightning.commands import COMMANDS
from o3_lightning.commands.requests import add_store_options, find_store, read_live_config
from o3_lightning.common.errors import InputError
from o3_lightning.common.program import LightParser

TARGETS = ("peft", "vllm", "llama.cpp")


def main(arguments: list[str]) -> None:
    """Writes a folder for one engine, and prints how to start it.

    Raises:
        InputError: the engine cannot serve the base model, or the folder cannot be written.
        StoreError: the store is damaged.
    """
    parser = LightParser("export", COMMANDS["export"])
    parser.usage = (
        "%(prog)s DIR --target ENGINE [--store FOLDER | --config FILE | --name RUN] [--field value]"
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write")
    parser.add_argument("--target", choices=TARGETS, default="peft", help="who reads it")
    add_store_options(parser)
    group = parser.add_argument_group("vllm")
    group.add_argument("--steps", type=int, default=20, help="strengths become multiples of 1 / STEPS")
    group.add_argument("--model_name", default="", help="name in the interface, by default the base's id")
    group.add_argument("--audit", default="", help="file of the audit log")
    options, fields = parser.parse_known_args(arguments)
    if options.steps < 1:
        raise InputError(f"expected 1 or more, got {options.steps}", field="steps")
    path = find_store(options)
    gate = read_live_config(path, options.config, fields).config.gate
    from o3_lightning.store.store import Store

    store = Store.open(path)
    if options.target == "peft":
        from o3_lightning.gating.export import export_requests

        records = {record.id: record for record in store.records() if record.is_gated}
        lines = [str(export_requests(store, records, gate, options.folder))]
    else:
        from o3_lightning.serving.export import export_llama_cpp, export_vllm

        if options.target == "vllm":
            named = {"name": options.model_name, "audit": options.audit}
            script = export_vllm(store, gate, options.folder, steps=options.steps, **named)
            lines = [f"start it where vLLM and o3-lightning are installed: {script}"]
        else:
            lines = export_llama_cpp(store, options.folder)
    sys.stdout.write("\n".join(lines) + "\n")
