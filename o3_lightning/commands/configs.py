"""`o3-lightning configs VERB`: the configurations that come with the package."""

import re
import sys
from itertools import takewhile
from pathlib import Path

from o3_lightning.commands import COMMANDS
from o3_lightning.common.errors import InputError
from o3_lightning.common.files import write_atomically
from o3_lightning.common.program import LightParser
from o3_lightning.common.shipped import shipped_configs, shipped_folder
from o3_lightning.common.yaml import read_mapping


def main(arguments: list[str]) -> None:
    """Lists the shipped configurations, or copies one into a folder."""
    parser = LightParser("configs", COMMANDS["configs"])
    parser.add_argument("verb", nargs="?", choices=("list", "copy"), default="list")
    parser.add_argument("name", nargs="?", help="the configuration to copy, such as tofu_continual")
    parser.add_argument("folder", nargs="?", default=".", help="where the copy goes; here by default")
    words = parser.parse_args(arguments)
    text = table() if words.verb == "list" else f"written to {copy(words.name, Path(words.folder))}"
    sys.stdout.write(f"{text}\n")


def table() -> str:
    """Returns a line per configuration: its name and its summary."""
    return "\n".join(f"{name:<36} {summary(shipped_folder() / f'{name}.yaml')}" for name in shipped_configs())


def summary(path: Path) -> str:
    """Returns the question that a study asks, or the first sentence of a file's comment."""
    question = read_mapping(path).get("question")
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.removeprefix("# ") for line in takewhile(lambda line: line[:2] == "# ", lines))
    return str(question) if question else re.split(r"(?<=\.) ", comment)[0]


def copy(name: str | None, folder: Path) -> Path:
    """Copies a shipped configuration; returns the path of the copy."""
    if name not in shipped_configs():
        raise InputError(f"expected the name of a shipped configuration, got {name!r}; 'list' shows them")
    target = folder / f"{Path(name).name}.yaml"
    if target.exists():
        raise InputError("exists already; give another folder", path=target)
    write_atomically(target, (shipped_folder() / f"{name}.yaml").read_text(encoding="utf-8"))
    return target
