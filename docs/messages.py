"""Every error message of the package, read from its source: for the page of messages and for its tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ERRORS = ("InputError", "StoreError", "AdapterTrainingError")
VARIABLE = "…"  # stands for what differs


def error_messages() -> dict[str, list[str]]:
    """Returns the messages by package, such as "data", with an ellipsis for what is filled in."""
    found: dict[str, dict[str, None]] = {}
    for path in sorted((ROOT / "o3_lightning").rglob("*.py")):
        room = path.relative_to(ROOT / "o3_lightning").parts[0]
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                found.setdefault(room, {}).update(dict.fromkeys(messages_of(function)))
    return {room: [*messages] for room, messages in found.items() if messages}


def messages_of(function: ast.FunctionDef) -> Iterator[str]:
    """Yields the messages of the errors that a function makes."""
    assigned: dict[str, list[str]] = {}
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and (text := text_of(node.value))
        ):
            assigned.setdefault(node.targets[0].id, []).append(text)
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ERRORS and node.args:
            argument = node.args[0]
            texts = (
                assigned.get(argument.id, []) if isinstance(argument, ast.Name) else [text_of(argument) or ""]
            )
            yield from (text for text in texts if re.search(r"[a-z]{3}", text))


def text_of(node: ast.expr) -> str | None:
    """Returns a string expression with an ellipsis for each variable part; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else VARIABLE for part in node.values
        )
    return None


def is_raised(message: str, templates: list[str]) -> bool:
    """Whether a message, or a part of one, is one of these with its variable parts filled in."""
    for template in templates:
        pattern = ".*?".join(map(re.escape, template.split(VARIABLE)))
        if message in template or re.fullmatch(f"(.*: )?{pattern}", message):
            return True
    return False
