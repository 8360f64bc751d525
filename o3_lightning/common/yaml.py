"""Strict reading of YAML files: mappings in UTF-8 without duplicate keys."""

import itertools
from pathlib import Path
from typing import Any

import yaml

from o3_lightning.common.errors import InputError

MOST_BYTES = 10_000_000
MOST_NODES = 100_000  # keys and values, those behind aliases counted wherever they are used
MOST_LEVELS = 50


class OnceLoader(yaml.SafeLoader):
    """The safe loader, but a duplicate key is an error instead of silently losing one of the values.

    A document that is nested too deeply, or that its aliases blow up beyond `MOST_NODES`, is an error, too,
    before it is built.
    """

    def get_single_data(self) -> Any:
        """Returns the content of the only document."""
        node = self.get_single_node()
        if node is not None and count_nodes(node, {}) > MOST_NODES:
            problem = f"more than {MOST_NODES:,} keys and values behind its aliases, or {MOST_LEVELS} levels"
            raise yaml.MarkedYAMLError(problem=problem)
        return None if node is None else self.construct_document(node)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Checks the keys of a mapping as written, before "<<" merges another one into it."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key '{key.value}' comes twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return node


def count_nodes(node: yaml.Node, known: dict[int, int], level: int = 0) -> int:
    """Returns the number of nodes of a document without aliases.

    A node within itself, or on too deep a level, counts as too many.
    """
    if level > MOST_LEVELS:
        return MOST_NODES + 1
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(count_nodes(part, known, level + 1) for part in parts)
    return known[id(node)]


def check_brackets(text: str) -> None:
    """Raises yaml.YAMLError if too many brackets are open at once; the parser would take long to say so."""
    steps = ((letter in "[{") - (letter in "]}") for letter in text)
    if max(itertools.accumulate(steps), default=0) > MOST_LEVELS:
        raise yaml.YAMLError(f"more than {MOST_LEVELS} brackets are open")


def read_document(text: str) -> Any:
    """Returns the content of a YAML text; yaml.YAMLError if it is none within the limits of this module."""
    if len(text) > MOST_BYTES:
        raise yaml.YAMLError(f"larger than {MOST_BYTES:,} bytes")
    check_brackets(text)
    try:
        return yaml.load(text, Loader=OnceLoader)  # noqa: S506
    except (ValueError, RecursionError) as error:  # a date such as 2024-13-01 is a ValueError
        raise yaml.YAMLError(str(error)) from error


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Returns the mapping in a YAML file in UTF-8, with or without a byte-order mark.

    Raises:
        InputError: the file cannot be read, is not UTF-8 or not YAML, is too large, also by its aliases,
            holds a key twice, or holds something else than keys and values.
    """
    try:
        if Path(path).stat().st_size > MOST_BYTES:
            raise InputError(f"larger than {MOST_BYTES:,} bytes", path=path)
        content = read_document(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path=path) from error
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8: byte {error.start + 1}", path=path) from error
    except yaml.YAMLError as error:
        raise InputError(f"is not YAML: {' '.join(str(error).split())}", path=path) from error
    if not isinstance(content, dict):
        raise InputError("expected keys and values", path=path)
    return content
