"""A detector on disk: tensors as safetensors, the rest as JSON, every key checked on the way in."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional as F

from o3_lightning.common.errors import InputError, StoreError
from o3_lightning.common.files import digest_bytes, write_atomically, write_json
from o3_lightning.detector.boundary import BoundaryState
from o3_lightning.detector.config import CHANNELS, DetectorConfig, SegmentConfig, TrainingConfig
from o3_lightning.detector.official import precision_root
from o3_lightning.detector.score_fusion import FusionState

if TYPE_CHECKING:
    from o3_lightning.detector.detector import Detector

__all__ = ["FORMAT_VERSION", "read_detector", "write_detector"]

FORMAT_VERSION = 3
# earlier versions are still read: nobody can fit a detector again without its prompts
WITHOUT_RARE_WORDS, WITHOUT_SUBJECT, WITH_WHOLE_PRECISION = 1, 2, 2
TENSOR_FILE, JSON_FILE = "detector.safetensors", "detector.json"
LORA_PREFIX = "lora."
# tensors with a column a channel, and what the column of a channel without effect holds
CHANNEL_TENSORS = {"center": 0.0, "spread": 1.0, "channel_weights": 0.0}
FUSION_SHAPES = {"within_scale", "mean", *CHANNEL_TENSORS}  # say how large what is added has to be
JSON_FIELDS = ("config", "encoder_digest", "encoder_id", "format", "report", "shapes", "tensors_sha256")


def write_detector(detector: Detector, folder: Path) -> None:
    """Writes both files, the tensors first."""
    tensors = {name: value.clone().contiguous() for name, value in named_tensors(detector.state).items()}
    tensors |= {LORA_PREFIX + name: value.contiguous() for name, value in detector.lora.items()}
    content = save(tensors)
    write_atomically(folder / TENSOR_FILE, content)
    described = {
        "format": FORMAT_VERSION,
        "encoder_id": detector.encoder_id,
        "encoder_digest": detector.encoder_digest,
        "config": dataclasses.asdict(detector.config),
        "report": detector.report,
        "shapes": {name: list(value.shape) for name, value in tensors.items()},
        "tensors_sha256": digest_bytes(content),
    }
    write_json(folder / JSON_FILE, described)


def read_detector(kind: type[Detector], folder: Path) -> Detector:
    """Reads both files and checks them against each other.

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
    lora = {
        name[len(LORA_PREFIX) :]: value for name, value in tensors.items() if name.startswith(LORA_PREFIX)
    }
    own = {name: value for name, value in tensors.items() if not name.startswith(LORA_PREFIX)}
    state_kind = FusionState if config.family == "fusion" else BoundaryState
    bring_up(own, config.family, described["format"])
    expected = [field.name for field in dataclasses.fields(state_kind)]
    for name in sorted(set(expected) ^ set(own)):
        problem = "missing" if name in expected else "unknown"
        raise StoreError(f"{folder / TENSOR_FILE}: tensor '{name}': {problem}")
    state = state_kind(**own)
    return kind(
        config, described["encoder_id"], described["encoder_digest"], state, lora, described["report"]
    )


def bring_up(tensors: dict[str, Tensor], family: str, version: int) -> None:
    """Brings the tensors of an earlier version up to this one, without a change to any score."""
    if family == "fusion" and version <= WITHOUT_RARE_WORDS:
        tensors.setdefault("rare", torch.zeros(1, 0, dtype=torch.int64))
    if family == "fusion" and version <= WITHOUT_SUBJECT and set(tensors) >= FUSION_SHAPES:
        layers, width = tensors["within_scale"].shape[1], tensors["mean"].shape[-1]
        tensors.setdefault("subject", torch.zeros(1, layers, width))
        tensors.setdefault("subject_offset", torch.zeros(1))
        for name, filler in CHANNEL_TENSORS.items():
            lacking = len(CHANNELS) - tensors[name].shape[1]
            tensors[name] = F.pad(tensors[name], (0, lacking), value=filler)
    if family == "official" and version <= WITH_WHOLE_PRECISION and "whitening" in tensors:
        tensors["whitening"] = precision_root(tensors["whitening"])


def named_tensors(state: FusionState | BoundaryState) -> dict[str, Tensor]:
    """Returns the tensors of a state by name."""
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


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
    kinds = {"format": int, "encoder_id": str, "encoder_digest": str, "tensors_sha256": str}
    for key in JSON_FIELDS:
        if key not in value:
            raise StoreError(f"{path}: field '{key}': missing")
        if not isinstance(value[key], kinds.get(key, dict)):
            raise StoreError(
                f"{path}: field '{key}': expected {kinds.get(key, dict).__name__}, got {value[key]!r:.40}"
            )
    if value["format"] not in (WITHOUT_RARE_WORDS, WITHOUT_SUBJECT, FORMAT_VERSION):
        raise StoreError(f"{path}: field 'format': expected {FORMAT_VERSION}, got {value['format']}")
    return value


def read_config(value: dict[str, Any], path: Path) -> DetectorConfig:
    """Returns the settings, refusing keys and values that this version does not know."""
    nested: dict[str, Any] = {"training": TrainingConfig, "segments": SegmentConfig}
    given: dict[str, Any] = {}
    for key, item in value.items():
        given[key] = tuple(item) if isinstance(item, list) else item
        if key in nested and not isinstance(item, dict):
            raise StoreError(f"{path}: field 'config.{key}': expected an object, got {item!r:.40}")
    try:
        parts = {key: nested[key](**given[key]) for key in nested if key in given}
        return DetectorConfig(**{**given, **parts})
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
