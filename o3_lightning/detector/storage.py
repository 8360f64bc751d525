"""A detector on disk: tensors as safetensors, the rest as JSON, every key checked on the way in."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.common.files import digest_bytes, write_atomically, write_json
from o3_lightning.detector.base import DETECTORS, Evidence, Saved
from o3_lightning.detector.config import DetectorConfig, TrainingConfig

__all__ = ["FORMAT_VERSION", "Stored", "read_detector", "write_detector"]

FORMAT_VERSION = 5
TENSOR_FILE, JSON_FILE = "detector.safetensors", "detector.json"
JSON_FIELDS = {
    "config": dict,
    "encoder_digest": str,
    "encoder_id": str,
    "parts": dict,
    "report": dict,
    "shapes": dict,
    "tensors_sha256": str,
}


class Stored(NamedTuple):
    """The content of both files.

    Args:
        config: settings, presets filled in.
        encoder_id: the encoder's name.
        encoder_digest: the encoder's digest.
        parts: each evidence by registered name; its tensors are stored as "<name>.<tensor>".
        report: figures of the fit.
    """

    config: DetectorConfig
    encoder_id: str
    encoder_digest: str
    parts: dict[str, Saved]
    report: dict[str, Any]


def write_detector(stored: Stored, folder: Path) -> None:
    """Writes both files, the tensors first."""
    tensors = {
        f"{part}.{name}": value.clone().contiguous()
        for part, saved in stored.parts.items()
        for name, value in saved.tensors.items()
    }
    content = save(tensors)
    write_atomically(folder / TENSOR_FILE, content)
    described = {
        "format": FORMAT_VERSION,
        "encoder_id": stored.encoder_id,
        "encoder_digest": stored.encoder_digest,
        "config": dataclasses.asdict(stored.config),
        "parts": {name: dict(saved.values) for name, saved in stored.parts.items()},
        "report": stored.report,
        "shapes": {name: list(value.shape) for name, value in tensors.items()},
        "tensors_sha256": digest_bytes(content),
    }
    write_json(folder / JSON_FILE, described)


def read_detector(folder: Path) -> tuple[Stored, dict[str, Evidence]]:
    """Reads both files, checks them against each other and loads the evidences.

    Raises:
        StoreError: naming the file and the key.
    """
    path = folder / JSON_FILE
    described = read_description(path)
    config = read_config(described["config"], path)
    content = read_bytes(folder / TENSOR_FILE)
    if digest_bytes(content) != described["tensors_sha256"]:
        raise StoreError(f"{folder / TENSOR_FILE}: damaged: its SHA-256 is not the one in {JSON_FILE}")
    tensors = read_tensors(content, folder / TENSOR_FILE, described["shapes"])
    saved = {name: Saved({}, values) for name, values in described["parts"].items()}
    for key, tensor in tensors.items():
        part, _, name = key.partition(".")
        if part not in saved:
            raise StoreError(f"{folder / TENSOR_FILE}: tensor '{key}': part '{part}' is not in {JSON_FILE}")
        saved[part] = Saved({**saved[part].tensors, name: tensor}, saved[part].values)
    parts = {name: load_part(name, own, config, folder) for name, own in saved.items()}
    identity = described["encoder_id"], described["encoder_digest"]
    return Stored(config, *identity, saved, described["report"]), parts


def load_part(name: str, saved: Saved, config: DetectorConfig, folder: Path) -> Evidence:
    """Returns the evidence of one part."""
    if name not in DETECTORS:
        raise StoreError(
            f"{folder / JSON_FILE}: part '{name}': no such detector; install the package that registers it, "
            f"known: {', '.join(DETECTORS.names())}"
        )
    try:
        return DETECTORS[name].load(saved, config)
    except ValueError as error:
        raise StoreError(f"{folder / TENSOR_FILE}: part '{name}': {error}") from error


def read_bytes(path: Path) -> bytes:
    """Returns a file's content."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_description(path: Path) -> dict[str, Any]:
    """Returns the JSON with every key there and of its type."""
    try:
        value = json.loads(read_bytes(path).decode())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise StoreError(f"{path}: damaged: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path}: damaged: expected an object, got {type(value).__name__}")
    if value.get("format") != FORMAT_VERSION:
        raise StoreError(
            f"{path}: field 'format': expected {FORMAT_VERSION}, got {value.get('format')!r}; there is no "
            "converter: fit the detector again from the request's prompts"
        )
    for key, kind in JSON_FIELDS.items():
        if key not in value:
            raise StoreError(f"{path}: field '{key}': missing")
        if not isinstance(value[key], kind):
            raise StoreError(f"{path}: field '{key}': expected {kind.__name__}, got {value[key]!r:.40}")
    return value


def read_config(value: dict[str, Any], path: Path) -> DetectorConfig:
    """Returns the settings, refusing keys and values that this version does not know."""
    given: dict[str, Any] = {
        key: tuple(item) if isinstance(item, list) else item for key, item in value.items()
    }
    if not isinstance(training := given.pop("training", {}), dict):
        raise StoreError(f"{path}: field 'config.training': expected an object, got {training!r:.40}")
    try:
        return DetectorConfig(**given, training=TrainingConfig(**training))
    except (TypeError, InputError) as error:
        raise StoreError(f"{path}: field 'config': {error}") from error


def read_tensors(content: bytes, path: Path, shapes: dict[str, Any]) -> dict[str, Tensor]:
    """Returns the tensors, each of the shape that the JSON names and free of NaN and infinity."""
    try:
        tensors: dict[str, Tensor] = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise StoreError(f"{path}: damaged: {error}") from error
    for name in sorted(set(shapes) ^ set(tensors)):
        raise StoreError(f"{path}: tensor '{name}': {'missing' if name in shapes else 'unknown'}")
    for name, tensor in tensors.items():
        if list(tensor.shape) != shapes[name]:
            raise StoreError(
                f"{path}: tensor '{name}': expected shape {shapes[name]}, got {list(tensor.shape)}"
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise StoreError(f"{path}: tensor '{name}': holds NaN or infinity")
    return tensors
