"""Reading a plain PEFT LoRA folder into the two factors of each module, the scaling folded into B.

Shapes: R rank, D width in, O width out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from o3_lightning.common.errors import StoreError

__all__ = ["Adapter", "load_adapter"]

PREFIX = "base_model.model."
FACTORS = {".lora_A.weight": "A", ".lora_B.weight": "B"}
PLAIN_NAME = re.compile(r"\^?[\w.]+")  # no other regular expression of a file is ever run
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class Adapter:
    """One request's adapter.

    Args:
        factors: per module path of the base model, A [R,D] and B [O,R]; W + B A is the adapted weight.
    """

    factors: Mapping[str, tuple[Tensor, Tensor]]


def load_adapter(folder: str | Path) -> Adapter:
    """Returns the adapter that PEFT saved in a folder; its configuration may ask for plain LoRA only.

    Raises:
        StoreError: a file is missing, damaged or of another kind of adapter, or holds NaN or infinity.
    """
    root = Path(folder)
    config = read_config(root / CONFIG)
    try:
        tensors = load_file(root / WEIGHTS)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise StoreError(f"{root / WEIGHTS}: cannot be read: {error}") from error
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        module, factor = split_key(key, root / WEIGHTS)
        if tensor.dim() != 2 or not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise StoreError(f"{root / WEIGHTS}: {key}: expected a finite matrix")
        pairs.setdefault(module, {})[factor] = tensor
    return Adapter({module: fold(module, pair, config, root) for module, pair in sorted(pairs.items())})


def read_config(path: Path) -> dict[str, Any]:
    """Returns the configuration of a plain LoRA adapter."""
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not JSON: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise StoreError(f"{path}: expected a LoRA adapter of PEFT")
    for field in ("use_dora", "modules_to_save", "lora_bias", "megatron_config", "layer_replication"):
        if config.get(field):
            raise StoreError(f"{path}: field '{field}': only plain LoRA can be gated per row")
    if not isinstance(config.get("lora_alpha"), int | float) or not math.isfinite(config["lora_alpha"]):
        raise StoreError(f"{path}: field 'lora_alpha': expected a number, got {config.get('lora_alpha')!r}")
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict) or not all(PLAIN_NAME.fullmatch(name) for name in patterns):
        raise StoreError(f"{path}: field 'alpha_pattern': expected an object with names of modules")
    return config


def split_key(key: str, path: Path) -> tuple[str, str]:
    """Returns the module path and the factor's name of a tensor key."""
    for suffix, factor in FACTORS.items():
        if key.startswith(PREFIX) and key.endswith(suffix):
            return key.removeprefix(PREFIX).removesuffix(suffix), factor
    raise StoreError(f"{path}: {key}: only lora_A and lora_B of linear layers can be gated per row")


def fold(
    module: str, pair: Mapping[str, Tensor], config: Mapping[str, Any], root: Path
) -> tuple[Tensor, Tensor]:
    """Returns A, and B times alpha / rank (alpha / sqrt(rank) for rank-stabilised LoRA)."""
    if set(pair) != {"A", "B"} or pair["A"].shape[0] != pair["B"].shape[1] or not pair["A"].shape[0]:
        raise StoreError(f"{root / WEIGHTS}: {module}: expected A [R,D] and B [O,R] of one rank")
    rank = pair["A"].shape[0]
    alpha = pattern_value(config.get("alpha_pattern") or {}, module, config["lora_alpha"])
    scaling = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    return pair["A"], pair["B"] * scaling


def pattern_value(patterns: Mapping[str, Any], module: str, default: float) -> float:
    """Returns the value of the first pattern that names a module, as PEFT looks it up."""
    for pattern, value in patterns.items():
        name = pattern.removeprefix("^")
        whole = module == name
        if isinstance(value, int | float) and (whole or (name == pattern and module.endswith(f".{name}"))):
            return value
    return default
