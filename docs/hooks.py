"""Pages that MkDocs makes from the source: commands, configuration, and the list of results."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from docstring_parser import parse
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "docs")]

from messages import error_messages  # noqa: E402  # MkDocs restores the path once this file is loaded

WIDTH = "100"  # of help texts
LOADED = re.compile(r'<(?:script|img|iframe)[^>]* src="(https?:[^"]*)"')
ENVIRONMENT = ("commit", "device", "threads", "torch")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages to the site."""
    pages = {
        "reference/cli.md": command_page(),
        "reference/configuration.md": configuration_page(),
        "reference/messages.md": messages_page(),
        "results/index.md": results_page(),
    }
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.py")):
        cells = cells_of(path.read_text(encoding="utf-8"))
        pages[f"notebooks/{path.stem}.md"] = notebook_page(cells, path.stem)
        pages[f"notebooks/{path.stem}.ipynb"] = notebook_file(cells)
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuses a page that would load something from the network."""
    if found := LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} loads {found.group(1)}: put a copy into docs/assets")
    return output


def command_page() -> str:
    """Returns the `--help` of every command, as the parsers write it."""
    from o3_lightning.commands import COMMANDS

    parts = [
        "# Commands\n",
        "`o3-lightning COMMAND --config FILE [--field value ...]`, in a checkout also `python train.py ...`. "
        "FILE is a path or the name of a shipped configuration; of several `--config` the later one wins. "
        "`--help-all` lists every field that a command reads ([configuration](configuration.md)), "
        "`--print_config` prints them as YAML.\n",
    ]
    for name, text in COMMANDS.items():
        parts.append(f"## {name}\n\n{text[0].upper()}{text[1:]}.\n\n```text\n{help_of(name)}```\n")
    return "\n".join(parts)


def help_of(command: str) -> str:
    """Returns the short help of a command."""
    import os

    from o3_lightning.commands.cli import main

    os.environ["COLUMNS"], sys.argv[0] = WIDTH, "o3-lightning"
    written = io.StringIO()
    with contextlib.redirect_stdout(written), contextlib.suppress(SystemExit):
        main([command, "--help"])
    return written.getvalue().replace(" \b", "")  # a backspace before [=flags]


def configuration_page() -> str:
    """Returns a table per section of the configuration: field, default, meaning."""
    from o3_lightning.release.config import ReleaseConfig
    from o3_lightning.reveal.config import RevealConfig
    from o3_lightning.run.config import RunConfig

    head = (
        "# Configuration\n\nA file is YAML with these sections; an option is `--section.field value`. "
        "Written from the dataclasses that own the fields; `configs/default.yaml` holds the same. "
        "`trainer.*` goes to `lightning.Trainer`.\n"
    )
    parts = [head, *sections(RunConfig, "", "run")]
    parts += ["# Reveal\n", *sections(RevealConfig, "", "reveal"), "# Release\n"]
    return "\n".join([*parts, *table(ReleaseConfig, "release")])


def sections(kind: type, prefix: str, title: str) -> Iterator[str]:
    """Yields the table of a dataclass, and of each section inside it."""
    yield from table(kind, prefix.rstrip(".") or title)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.default_factory):
            yield from sections(field.default_factory, f"{prefix}{field.name}.", title)


def table(kind: type, title: str) -> Iterator[str]:
    """Yields the heading and the rows of one dataclass."""
    bases = [base for base in reversed(kind.__mro__) if dataclasses.is_dataclass(base)]
    documented = {
        item.arg_name: item.description for base in bases for item in parse(inspect.getdoc(base) or "").params
    }
    rows = [
        f"| `{field.name}` | {default_of(field)} | {cell(documented.get(field.name))} |"
        for field in dataclasses.fields(kind)
        if not dataclasses.is_dataclass(field.default_factory)
    ]
    yield f"## {title}\n\n| field | default | meaning |\n|---|---|---|"
    yield "\n".join(rows) + "\n"


def default_of(field: dataclasses.Field[Any]) -> str:
    """Returns the default of a field as YAML writes it."""
    value = field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore[misc]
    value = list(value) if isinstance(value, tuple) else value
    return f"`{json.dumps(value)}`"


def cell(text: str | None) -> str:
    """Returns a text for a cell of a table."""
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")


def messages_page() -> str:
    """Returns every error message, by the package that gives it."""
    parts = [
        "# Messages\n\nEvery message of a mistake, read from the source; … stands for what differs. "
        "[Troubleshooting](../howto/troubleshooting.md) says what to do about those that users meet most.\n"
    ]
    for room, texts in error_messages().items():
        parts.append(
            f"## {room}\n\n" + "\n".join(f"* `` {' '.join(text.split())} ``" for text in texts) + "\n"
        )
    return "\n".join(parts)


def cells_of(text: str) -> list[tuple[str, str]]:
    """Returns kind ("markdown" or "code") and text of each cell of a notebook in jupytext's format."""
    cells = []
    for part in text.split("\n# %%")[1:]:
        head, _, body = part.partition("\n")
        if "[markdown]" in head:
            lines = [line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()]
            cells.append(("markdown", "\n".join(lines)))
        else:
            cells.append(("code", body.strip()))
    return cells


def notebook_page(cells: list[tuple[str, str]], name: str) -> str:
    """Returns a notebook as a page."""
    parts = [text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in cells]
    parts.append(f"Download: [{name}.ipynb]({name}.ipynb)")
    return "\n\n".join(parts) + "\n"


def notebook_file(cells: list[tuple[str, str]]) -> str:
    """Returns a notebook in Jupyter's format, without outputs."""
    written: list[dict[str, Any]] = []
    for number, (kind, text) in enumerate(cells):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": text}
        written.append(cell if kind == "markdown" else {**cell, "execution_count": None, "outputs": []})
    return json.dumps({"cells": written, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1)


def results_page() -> str:
    """Returns every results file with the command that wrote it, and the tables of the studies."""
    commands = yaml.safe_load((ROOT / "results" / "commands.yaml").read_text(encoding="utf-8"))
    parts = [
        "# Results\n",
        "Every figure of these pages comes from a file of `results/`, and each file from one command of this "
        "repository. The tables of studies below are read from these files when the site is built; "
        "`python -m benchmarks.tables` writes those of the other pages again.\n",
        "| file | command | measured with |\n|---|---|---|",
    ]
    parts.append(
        "\n".join(
            f"| `{name}.json` | `{command}` | {environment(name)} |" for name, command in commands.items()
        )
    )
    for path in sorted((ROOT / "results").glob("*.md")):
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        question = content.get("question", "")
        parts.append(f"\n## {path.stem}\n\n{question}\n\n{path.read_text(encoding='utf-8')}")
    return "\n".join(parts)


def environment(name: str) -> str:
    """Returns commit, device and torch version of a results file, where it says them."""
    found = (
        json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8")).get("environment") or {}
    )
    return ", ".join(f"{key} {found[key]}" for key in ENVIRONMENT if key in found)
