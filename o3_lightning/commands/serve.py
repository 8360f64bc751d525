"""`o3-lightning serve`: answers HTTP calls with the gated model of a store."""

import inspect
import re
import sys
from argparse import RawDescriptionHelpFormatter

from o3_lightning.commands import COMMANDS
from o3_lightning.commands.requests import add_store_options, find_store, read_live_config
from o3_lightning.common.errors import InputError
from o3_lightning.common.program import LightParser
from o3_lightning.run.parsing import build
from o3_lightning.serving.config import ServeConfig


def main(arguments: list[str]) -> None:
    """Serves a store until SIGINT or SIGTERM.

    Raises:
        InputError: bad input, an address in use, or the extra `serve` is not installed.
        StoreError: the store is damaged, or made for another model.
    """
    parser = LightParser("serve", COMMANDS["serve"])
    parser.usage = "%(prog)s [--store FOLDER | --config FILE | --name RUN] [--field value]"
    described = (inspect.getdoc(ServeConfig) or "").split("Args:\n")[1].split("\n\nRaises:")[0]
    server_fields = re.sub(r"^    (?=\w)", "  --", described, flags=re.MULTILINE)
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = (
        f"fields of the server:\n{server_fields}\n\n"
        "Also takes the fields of a configuration, by default those of the run that owns the store."
    )
    add_store_options(parser)
    options, fields = parser.parse_known_args(arguments)
    store = find_store(options)
    run, trainer, namespace = read_live_config(store, options.config, fields, ServeConfig)
    config = build(ServeConfig, namespace)
    try:
        from o3_lightning.serving.server import bind_address, make_app, serve
    except ModuleNotFoundError as error:
        message = f"{error.name} is missing; the server needs pip install 'o3-lightning[serve]'"
        raise InputError(message) from error
    from o3_lightning.detector.encoder import load_configured_encoder
    from o3_lightning.run.recorded_base import load_base_for

    address = bind_address(config)  # before minutes of loading
    base = load_base_for(store, run)
    app = make_app(store, base, load_configured_encoder(run.detector), run, config, trainer)
    host, port = address.getsockname()[:2]
    sys.stderr.write(f"serving {store} on http://{f'[{host}]' if ':' in host else host}:{port}\n")
    serve(app, config, address)
