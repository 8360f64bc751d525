"""store.json: the base model and encoder that a store belongs to; creating an empty store."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from o3_lightning.common.errors import StoreError
from o3_lightning.common.files import digest_file, to_json, write_atomically
from o3_lightning.store.journal import CREATE, JOURNAL, START, Entry, now_text, parse_journal
from o3_lightning.store.transaction import REQUESTS
from o3_lightning.store.verify import STORE

__all__ = ["FORMAT", "IDENTITY_KEYS", "read_identity", "write_new_store"]

FORMAT = 1
IDENTITY_KEYS = ("base_id", "base_digest", "encoder_id", "encoder_digest")


def write_new_store(root: Path, identity: Mapping[str, str]) -> None:
    """Writes an empty store; store.json is written last and marks it as complete."""
    if (root / STORE).exists():
        raise StoreError(f"{root}: there is a store already")
    journal = root / JOURNAL
    left = journal.exists() and len(parse_journal(journal.read_bytes()).entries) <= 1
    for path in root.iterdir():
        leftover = path.name.startswith(".") or (left and path.name in (JOURNAL, REQUESTS))
        if not leftover or (path.name == REQUESTS and any(path.iterdir())):
            raise StoreError(f"{root}: expected an empty folder, found {path.name}")
        if path.suffix == ".tmp":
            path.unlink()
    content = to_json({"format": FORMAT, **identity}) + "\n"
    draft = root / f".{STORE}.tmp"
    draft.write_text(content, encoding="utf-8")
    entry = Entry(0, CREATE, "", {STORE: digest_file(draft)}, now_text(), START)
    write_atomically(journal, entry.to_line())
    (root / REQUESTS).mkdir(exist_ok=True)
    write_atomically(root / STORE, content)
    os.unlink(draft)


def read_identity(root: Path) -> dict[str, str]:
    """Returns ids and digests of the base model and the encoder of a store.

    Raises:
        StoreError: there is no store, it has another format version, or store.json is damaged.
    """
    path = root / STORE
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise StoreError(f"{path}: no store here: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: damaged, not JSON: {error}") from error
    version = value.get("format") if isinstance(value, dict) else None
    if version != FORMAT:
        raise StoreError(f"{path}: format version {version!r}; this program reads version {FORMAT}")
    if set(value) != {"format", *IDENTITY_KEYS} or not all(
        isinstance(value[key], str) for key in IDENTITY_KEYS
    ):
        raise StoreError(f"{path}: damaged, expected the texts {', '.join(IDENTITY_KEYS)}")
    return {key: value[key] for key in IDENTITY_KEYS}
