"""The adapters of earlier requests, stacked per module so that a penalty against all of them is one product.

Shapes: P earlier requests, R rank, D input width, O output width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from o3_kernels import stack_history
from o3_lightning.common.errors import StoreError
from o3_lightning.common.files import digest_bytes

__all__ = ["AdapterHistory", "read_factors"]

PREFIX = "base_model.model."
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
Factors = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class AdapterHistory:
    """Earlier adapters in order.

    Args:
        ids: of the requests, oldest first.
        inputs: per module path lora_A of each, [P, R, D]; lower ranks are filled up with zero rows, which
            count nothing in any product.
        outputs: per module path lora_B of each, transposed, [P, R, O].
        scalings: alpha / rank of each, [P].
    """

    ids: tuple[str, ...] = ()
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    scalings: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def load(cls, folders: Mapping[str, Path]) -> AdapterHistory:
        """Returns the adapters that PEFT saved in some folders, in the order given.

        Raises:
            StoreError: a folder holds no adapter, or a damaged one.
        """
        return cls.of({id: read_factors(folder) for id, folder in folders.items()})

    @classmethod
    def of(cls, adapters: Mapping[str, tuple[Factors, float]]) -> AdapterHistory:
        """Returns a history of lora_A [R,D] and lora_B [O,R] per module, each adapter with its scaling."""
        modules = sorted({module for factors, _ in adapters.values() for module in factors})
        inputs = [
            stack([factors.get(m, (None, None))[0] for factors, _ in adapters.values()]) for m in modules
        ]
        outputs = [
            stack([None if m not in factors else factors[m][1].T for factors, _ in adapters.values()])
            for m in modules
        ]
        return cls(
            tuple(adapters),
            dict(zip(modules, stack_history(inputs), strict=True)) if modules else {},
            dict(zip(modules, stack_history(outputs), strict=True)) if modules else {},
            tuple(scaling for _, scaling in adapters.values()),
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the factors."""
        tensors = [*self.inputs.values(), *self.outputs.values()]
        return digest_bytes(*(tensor.contiguous().cpu().numpy().tobytes() for tensor in tensors))

    def side(self, name: str) -> dict[str, Tensor]:
        """Returns `inputs` or `outputs` for "input" or "output"."""
        return self.inputs if name == "input" else self.outputs

    def against(self, which: str) -> AdapterHistory:
        """Returns "all" of the history, or the "last" request alone."""
        if which == "all" or len(self) < 2:
            return self
        return AdapterHistory(
            self.ids[-1:],
            {module: tensor[-1:] for module, tensor in self.inputs.items()},
            {module: tensor[-1:] for module, tensor in self.outputs.items()},
            self.scalings[-1:],
        )


def stack(tensors: list[Tensor | None]) -> Tensor:
    """Stacks matrices of one width, filling up missing ones and missing rows with zeros, in float32."""
    present = [tensor for tensor in tensors if tensor is not None]
    rank, width = max(len(tensor) for tensor in present), present[0].shape[1]
    stacked = torch.zeros(len(tensors), rank, width)
    for place, tensor in enumerate(tensors):
        if tensor is not None:
            stacked[place, : len(tensor)] = tensor.float()
    return stacked


def read_factors(folder: str | Path) -> tuple[Factors, float]:
    """Returns lora_A and lora_B per module path, and alpha / rank, of an adapter that PEFT saved.

    Raises:
        StoreError: a file is missing or damaged, or a factor has no counterpart.
    """
    root = Path(folder)
    try:
        config = json.loads((root / CONFIG).read_bytes())
        tensors = load_file(root / WEIGHTS)
        scaling = float(config["lora_alpha"]) / int(config["r"])
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError, SafetensorError) as error:
        raise StoreError(f"{root}: no readable adapter: {error}") from error
    factors: Factors = {}
    for key, a in tensors.items():
        if not key.endswith(".lora_A.weight"):
            continue
        b = tensors.get(key.replace(".lora_A.", ".lora_B."))
        if b is None:
            raise StoreError(f"{root}: {key} has no lora_B")
        factors[key.removeprefix(PREFIX).removesuffix(".lora_A.weight")] = a, b
    return factors, scaling
