"""The adapters of earlier requests, stacked by module so that a penalty against all of them is one product.

Shapes: P earlier requests, R rank, D input width, O output width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from o3_kernels import stack_history
from o3_lightning.common.files import digest_bytes
from o3_lightning.models.lora import LoraFactors


@dataclass(frozen=True)
class AdapterHistory:
    """Earlier adapters in order.

    Args:
        ids: of the requests, oldest first.
        inputs: lora_A by module path, [P, R, D]; lower ranks are padded with zero rows, which do not change
            any product.
        outputs: transposed lora_B by module path, [P, R, O].
        scales: of each adapter, by module path.
    """

    ids: tuple[str, ...] = ()
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    scales: tuple[Mapping[str, float], ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def load(cls, folders: Mapping[str, Path]) -> Self:
        """Returns the adapters in PEFT folders, in order; StoreError if one is missing or damaged."""
        return cls.of({id: LoraFactors.load(folder) for id, folder in folders.items()})

    @classmethod
    def of(cls, adapters: Mapping[str, LoraFactors]) -> Self:
        """Returns the history of some adapters, oldest first."""
        every = [adapter.pairs for adapter in adapters.values()]
        modules = sorted({module for pairs in every for module in pairs})
        inputs = [stack([pairs[m][0] if m in pairs else None for pairs in every]) for m in modules]
        outputs = [stack([pairs[m][1].T if m in pairs else None for pairs in every]) for m in modules]
        return cls(
            tuple(adapters),
            dict(zip(modules, stack_history(inputs), strict=True)) if modules else {},
            dict(zip(modules, stack_history(outputs), strict=True)) if modules else {},
            tuple(adapter.scales for adapter in adapters.values()),
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the factors."""
        tensors = [*self.inputs.values(), *self.outputs.values()]
        return digest_bytes(*(tensor.contiguous().cpu().numpy().tobytes() for tensor in tensors))

    def side(self, name: str) -> dict[str, Tensor]:
        """Returns `inputs` or `outputs` for "input" or "output"."""
        return self.inputs if name == "input" else self.outputs

    def against(self, which: str) -> Self:
        """Returns the whole history for "all", the most recent adapter alone for "last"."""
        if which == "all" or len(self) < 2:
            return self
        return type(self)(
            self.ids[-1:],
            {module: tensor[-1:] for module, tensor in self.inputs.items()},
            {module: tensor[-1:] for module, tensor in self.outputs.items()},
            self.scales[-1:],
        )


def stack(tensors: list[Tensor | None]) -> Tensor:
    """Stacks matrices of one width in float32; missing matrices and rows become zeros."""
    present = [tensor for tensor in tensors if tensor is not None]
    rank, width = max(len(tensor) for tensor in present), present[0].shape[1]
    stacked = torch.zeros(len(tensors), rank, width)
    for place, tensor in enumerate(tensors):
        if tensor is not None:
            stacked[place, : len(tensor)] = tensor.float()
    return stacked
