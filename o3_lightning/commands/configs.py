"""`o3-lightning configs VERB`: the configurations that come with the package."""

from __future__ import annotations

import sys
from pathlib import Path

from o3_lightning.commands.common import new_parser
from o3_lightning.common.errors import InputError
from o3_lightning.common.files import write_atomically
from o3_lightning.common.shipped import find_file, shipped_configs, shipped_folder
from o3_lightning.run.parsing import parse

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Lists the shipped configurations, or copies one into a folder.

    Raises:
        InputError: there is no such configuration, or the copy would replace a file.
    """
    parser = new_parser("configs", "Lists the shipped configurations, or copies one to change it.")
    parser.add_argument("verb", nargs="?", choices=("list", "copy"), default="list")
    parser.add_argument("name", nargs="?", help="the configuration to copy, such as tofu_continual")
    parser.add_argument("folder", nargs="?", default=".", help="where the copy goes; here by default")
    words = parse(parser, arguments)
    text = table() if words.verb == "list" else f"written to {copy(words.name, Path(words.folder))}"
    sys.stdout.write(f"{text}\n")


def table() -> str:
    """Returns a line a configuration: its name and the first sentence of its comment."""
    lines = []
    for name in shipped_configs():
        first = find_file(shipped_folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
        lines.append(f"{name:<36} {first.removeprefix('# ')}")
    return "\n".join(lines)


def copy(name: str | None, folder: Path) -> Path:
    """Copies a shipped configuration and returns the path of the copy."""
    if name not in shipped_configs():
        raise InputError(f"expected the name of a shipped configuration, got {name!r}; 'list' shows them")
    target = folder / f"{Path(name).name}.yaml"
    if target.exists():
        raise InputError("exists already; give another folder", path=target)
    write_atomically(target, (shipped_folder() / f"{name}.yaml").read_text(encoding="utf-8"))
    return target
