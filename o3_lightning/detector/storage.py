"""A detector on disk: tensors as safetensors, the rest as JSON, every key checked on the way in."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.common.files import digest_bytes, read_stored, write_atomically, write_json
from o3_lightning.detector.base import DETECTORS, Evidence, Saved
from o3_lightning.detector.config import DetectorConfig, TrainingConfig

FORMAT_VERSION = 5
FORMER_FIELDS = {"normalise": True, "slope_power": 2.0}  # with the values that every detector has now
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


def write_detector(folder: Path, fields: Mapping[str, Any], parts: Mapping[str, Saved]) -> None:
    """Writes both files, the tensors first.

    Args:
        folder: created if it does not exist.
        fields: the encoder's id and digest, the settings and the report.
        parts: each evidence by registered name; its tensors are stored as "<name>.<tensor>".
    """
    tensors = {
        f"{part}.{name}": value.clone().contiguous()
        for part, saved in parts.items()
        for name, value in saved.tensors.items()
    }
    content = save(tensors)
    write_atomically(folder / TENSOR_FILE, content)
    described = {
        "format": FORMAT_VERSION,
        **fields,
        "parts": {name: dict(saved.values) for name, saved in parts.items()},
        "shapes": {name: list(value.shape) for name, value in tensors.items()},
        "tensors_sha256": digest_bytes(content),
    }
    write_json(folder / JSON_FILE, described)


def read_detector(folder: Path) -> tuple[dict[str, Any], dict[str, Evidence]]:
    """Reads both files, checks them against each other and loads the evidences.

    Returns:
        The fields, "config" as `DetectorConfig`, and each evidence by registered name.

    Raises:
        StoreError: naming the file and the key.
    """
    path, tensor_path = folder / JSON_FILE, folder / TENSOR_FILE
    described = read_description(path)
    described["config"] = config = read_config(described["config"], path)
    try:
        content = tensor_path.read_bytes()
    except OSError as error:
        raise StoreError(f"{tensor_path}: cannot be read: {error.strerror or error}") from error
    if digest_bytes(content) != described["tensors_sha256"]:
        raise StoreError(f"{tensor_path}: damaged: its SHA-256 is not the one in {JSON_FILE}")
    tensors: dict[str, dict[str, Tensor]] = {name: {} for name in described["parts"]}
    for key, tensor in read_tensors(content, tensor_path, described["shapes"]).items():
        part, _, name = key.partition(".")
        if part not in tensors:
            raise StoreError(f"{tensor_path}: tensor '{key}': part '{part}' is not in {JSON_FILE}")
        tensors[part][name] = tensor
    parts = {}
    for name, values in described["parts"].items():
        if name not in DETECTORS:
            raise StoreError(
                f"{path}: part '{name}': no such detector; install the package that registers it, "
                f"known: {', '.join(DETECTORS.names())}"
            )
        try:
            parts[name] = DETECTORS[name].load(Saved(tensors[name], values), config)
        except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
            raise StoreError(f"{tensor_path}: part '{name}': {error}") from error
    return described, parts


def read_description(path: Path) -> dict[str, Any]:
    """Returns the JSON with every key there and of its type."""
    value = read_stored(path)
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
    """Returns the settings, refusing keys and values that this version does not know.

    Fields of earlier versions that presets decide now are dropped; what they no longer decide is refused.
    """
    given: dict[str, Any] = {
        key: tuple(item) if isinstance(item, list) else item for key, item in value.items()
    }
    if not isinstance(training := given.pop("training", {}), dict):
        raise StoreError(f"{path}: field 'config.training': expected an object, got {training!r:.40}")
    family = given.pop("family", None)
    for name, only in FORMER_FIELDS.items():
        if (got := given.pop(name, only)) != only:
            raise StoreError(
                f"{path}: field 'config.{name}': expected {only!r}, its only value now, got {got!r}: "
                "fit the detector again from the request's prompts"
            )
    given.pop("bank", None)
    for name in ("normalise", "floor"):
        training.pop(name, None)
    try:
        config = DetectorConfig(**given, training=TrainingConfig(**training))
        return config if family in (None, config.family) else replace(config, preset=family)
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
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise StoreError(f"{path}: tensor '{name}': holds NaN or infinity")
    return tensors
