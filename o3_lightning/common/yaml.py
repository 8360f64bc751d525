"""Strict reading of YAML files: mappings in UTF-8 without duplicate keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from o3_lightning.common.errors import InputError

__all__ = ["read_mapping"]


class OnceLoader(yaml.SafeLoader):
    """The safe loader, but a duplicate key is an error instead of silently losing one of the values."""

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


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Returns the mapping in a YAML file in UTF-8, with or without a byte-order mark.

    Raises:
        InputError: the file cannot be read, is not UTF-8 or not YAML, holds a key twice, or holds something
            else than keys and values.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8-sig"), Loader=OnceLoader)  # noqa: S506
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path=path) from error
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8: byte {error.start + 1}", path=path) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date such as 2024-13-01 is a ValueError
        raise InputError(f"is not YAML: {' '.join(str(error).split())}", path=path) from error
    if not isinstance(content, dict):
        raise InputError("expected keys and values", path=path)
    return content
