"""LoRA factors of one adapter: the one place that reads, writes, scales and adds them up.

Shapes: R rank, D input width, O output width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from o3_lightning.common.errors import StoreError
from o3_lightning.common.files import read_stored, write_atomically, write_json

PEFT_PREFIX = "base_model.model."
LORA_CONFIG, LORA_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FACTORS = {".lora_A.weight": "A", ".lora_B.weight": "B"}
NOT_PLAIN = ("use_dora", "modules_to_save", "lora_bias", "megatron_config", "layer_replication")
MOST_ALPHA = 1e9
PLAIN_NAME = re.compile(r"\^?[\w.]+")  # no other regular expression of a file is ever run


@dataclass(frozen=True)
class LoraFactors:
    """The low-rank factors of one adapter; the adapted weight of a module is W + scale * B A.

    Args:
        pairs: A [R,D] and B [O,R] per module path of the base model.
        scales: factor of B A per module path: alpha / rank, or alpha / sqrt(rank) for rank-stabilised LoRA.

    Example:
        >>> factors = LoraFactors.uniform({"m": (torch.ones(1, 2), torch.ones(1, 1))}, scale=3.0)
        >>> factors.delta("m").tolist()
        [[3.0, 3.0]]
    """

    pairs: Mapping[str, tuple[Tensor, Tensor]]
    scales: Mapping[str, float]

    @classmethod
    def uniform(cls, pairs: Mapping[str, tuple[Tensor, Tensor]], scale: float = 1.0) -> LoraFactors:
        """Returns factors with the same scale for every module."""
        return cls(pairs, dict.fromkeys(pairs, scale))

    @classmethod
    def load(cls, folder: str | Path) -> LoraFactors:
        """Returns the factors of a plain LoRA adapter that PEFT or `save` wrote into a folder.

        Raises:
            StoreError: a file is missing or damaged, the adapter is not plain LoRA, or a tensor is not a
                finite matrix.
        """
        root = Path(folder)
        config, path = read_config(root / LORA_CONFIG), root / LORA_WEIGHTS
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error
        found: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            module, factor = split_key(key, path)
            if (
                tensor.dim() != 2
                or not tensor.is_floating_point()
                or not bool(torch.isfinite(tensor.float()).all())
            ):
                raise StoreError(f"{path}: {key}: expected a finite matrix")
            found.setdefault(module, {})[factor] = tensor
        pairs = {module: check_pair(module, pair, path) for module, pair in sorted(found.items())}
        return cls(pairs, {module: scale_of(module, len(a), config) for module, (a, _) in pairs.items()})

    def save(self, folder: Path, config: Mapping[str, Any] | None = None) -> None:
        """Writes adapter_model.safetensors and then adapter_config.json, each atomically, as PEFT reads them.

        Args:
            folder: created if missing.
            config: content of adapter_config.json; None writes one that reproduces `scales`.
        """
        tensors = {}
        for path, (a, b) in self.pairs.items():
            tensors[f"{PEFT_PREFIX}{path}.lora_A.weight"] = a.contiguous()
            tensors[f"{PEFT_PREFIX}{path}.lora_B.weight"] = b.contiguous()
        write_atomically(folder / LORA_WEIGHTS, save(tensors, metadata={"format": "pt"}))
        write_json(folder / LORA_CONFIG, dict(self.peft_config() if config is None else config))

    def peft_config(self) -> dict[str, Any]:
        """Returns a configuration of PEFT with rank and alpha of every module."""
        ranks = {path: len(a) for path, (a, _) in self.pairs.items()}
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "inference_mode": True,
            "r": max(ranks.values(), default=1),
            "lora_alpha": 1,
            "target_modules": sorted(ranks),
            "rank_pattern": {f"^{path}": rank for path, rank in ranks.items()},
            "alpha_pattern": {f"^{path}": self.scales[path] * rank for path, rank in ranks.items()},
        }

    def delta(self, module: str, dtype: torch.dtype = torch.float32) -> Tensor:
        """Returns a module's change of weight, scale * B A, [O,D], computed in `dtype`."""
        a, b = self.pairs[module]
        return self.scales[module] * (b.to(dtype) @ a.to(dtype))

    def folded(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns A and scale * B per module path."""
        return {path: (a, b * self.scales[path]) for path, (a, b) in self.pairs.items()}

    def scaled(self, factor: float | Mapping[str, float]) -> LoraFactors:
        """Returns the same factors with every scale multiplied, by one number or one per module path."""
        factors = factor if isinstance(factor, Mapping) else dict.fromkeys(self.scales, factor)
        return LoraFactors(self.pairs, {path: scale * factors[path] for path, scale in self.scales.items()})

    @classmethod
    def stacked(cls, parts: Sequence[LoraFactors]) -> LoraFactors:
        """Returns the exact sum of some adapters: their factors side by side, in float32, every scale 1.

        Adding up the factors, as PEFT's combination "linear" does, is not exact: it adds the products of one
        adapter's B with another's A.
        """
        pairs = {}
        for path in sorted({path for part in parts for path in part.pairs}):
            here = [(*part.pairs[path], part.scales[path]) for part in parts if path in part.pairs]
            a = torch.cat([a.float() for a, _, _ in here])
            pairs[path] = a, torch.cat([b.float() * scale for _, b, scale in here], dim=1)
        return cls.uniform(pairs)


def weight_change(layer: nn.Module, a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns B A, computed in `dtype`, in the layout of a layer's weight: [O,D], but [D,O] for `Conv1D`."""
    change = b.to(dtype) @ a.to(dtype)
    return change.T if isinstance(layer, Conv1D) else change


def read_config(path: Path) -> dict[str, Any]:
    """Returns the configuration of a plain LoRA adapter."""
    config = read_stored(path)
    if config.get("peft_type") != "LORA":
        raise StoreError(f"{path}: expected a LoRA adapter of PEFT")
    for field in NOT_PLAIN:
        if config.get(field):
            raise StoreError(f"{path}: field '{field}': only plain LoRA is supported")
    if not is_alpha(config.get("lora_alpha")):
        raise StoreError(
            f"{path}: field 'lora_alpha': expected a number, got {config.get('lora_alpha')!r:.40}"
        )
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict) or not all(
        PLAIN_NAME.fullmatch(name) and is_alpha(alpha) for name, alpha in patterns.items()
    ):
        raise StoreError(f"{path}: field 'alpha_pattern': expected numbers by names of modules")
    return config


def is_alpha(value: Any) -> bool:
    """Whether a value is a number that can be a scale; NaN and infinity are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST_ALPHA


def split_key(key: str, path: Path) -> tuple[str, str]:
    """Returns the module path and the factor's name of a tensor key."""
    for suffix, factor in FACTORS.items():
        if key.startswith(PEFT_PREFIX) and key.endswith(suffix):
            return key.removeprefix(PEFT_PREFIX).removesuffix(suffix), factor
    raise StoreError(f"{path}: {key}: expected only lora_A and lora_B of linear layers")


def check_pair(module: str, pair: Mapping[str, Tensor], path: Path) -> tuple[Tensor, Tensor]:
    """Returns A and B of a module."""
    if set(pair) != {"A", "B"} or pair["A"].shape[0] != pair["B"].shape[1] or not pair["A"].shape[0]:
        raise StoreError(f"{path}: {module}: expected A [R,D] and B [O,R] of one rank")
    return pair["A"], pair["B"]


def scale_of(module: str, rank: int, config: Mapping[str, Any]) -> float:
    """Returns the scale of a module; the first alpha pattern that names it counts, as in PEFT."""
    alpha = config["lora_alpha"]
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        name = pattern.removeprefix("^")
        named = module == name or (name == pattern and module.endswith(f".{name}"))
        if named:
            alpha = value
            break
    return float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)
