"""`o3-lightning audit FILE`: summarises the audit log of a server."""

import sys

from o3_lightning.commands import COMMANDS
from o3_lightning.common.errors import InputError
from o3_lightning.common.program import LightParser


def main(arguments: list[str]) -> None:
    """Prints answers, decisions, refusals by request and latencies.

    Raises:
        InputError: there is no such file, or it is not an audit log.
    """
    parser = LightParser("audit", COMMANDS["audit"])
    parser.add_argument(
        "file", nargs="?", help="the log that `serve --audit` wrote; its rotated files are read, too"
    )
    options = parser.parse_args(arguments)
    if options.file is None:
        raise InputError("give the file of an audit log")
    from o3_lightning.serving.audit import summarise

    sys.stdout.write(summarise(options.file) + "\n")
