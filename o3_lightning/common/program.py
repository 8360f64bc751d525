"""The command that was typed, for messages to repeat it, and the parser of commands that import little."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from o3_lightning.common.errors import InputError


class LightParser(argparse.ArgumentParser):
    """The parser of a command that answers at once: it imports no torch, and raises InputError on a mistake.

    Args:
        command: its name.
        description: one sentence for `--help`.
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"{program_name()} {command}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raises InputError with a hint at `--help`."""
        raise InputError(f"{message}; see {self.prog} --help")


def program_name() -> str:
    """Returns "python train.py", "python -m o3_lightning" or, however else it was started, "o3-lightning"."""
    path = Path(sys.argv[0])
    if path.name == "train.py":
        return f"python {sys.argv[0]}"
    in_package = path.name == "__main__.py" and path.parent.name == "o3_lightning"
    return "python -m o3_lightning" if in_package else "o3-lightning"
