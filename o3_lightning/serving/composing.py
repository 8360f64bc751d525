"""Weighted sums of adapters as single adapters, for engines that know no weight per row."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import digest_bytes
from o3_lightning.models.lora import LORA_CONFIG, LoraFactors

PREFIX = "o3-"


class Composer:
    """Writes the weighted sum of some adapters as one, each combination once.

    Args:
        folder: of the combined adapters.
        steps: strengths are rounded to multiples of 1 / steps, those above 0 to at least one.
        max_rank: largest rank of a combined adapter.
    """

    def __init__(self, folder: Path, steps: int, max_rank: int) -> None:
        self.folder, self.steps, self.max_rank = folder, steps, max_rank
        self.names: dict[tuple[tuple[str, int], ...], str] = {}

    def name(self, adapters: Mapping[str, LoraFactors], strengths: Mapping[str, float]) -> str:
        """Returns the name of the combined adapter, which is in the folder then.

        Args:
            adapters: by request.
            strengths: above 0 and at most 1, by request.

        Raises:
            InputError: the combination has a larger rank than vLLM was started for.
        """
        parts = tuple((id, max(1, round(value * self.steps))) for id, value in sorted(strengths.items()))
        if parts not in self.names:
            found = LoraFactors.stacked([adapters[id].scaled(step / self.steps) for id, step in parts])
            rank = max(len(a) for a, _ in found.pairs.values())
            if rank > self.max_rank:
                raise InputError(f"expected up to {self.max_rank}, got {rank}", field="max_rank")
            padded = LoraFactors.uniform({path: pad_rank(*pair, rank) for path, pair in found.pairs.items()})
            pairs = padded.pairs.items()  # their scales are 1
            tensors = {f"{path}.{n}": one.contiguous() for path, pair in pairs for n, one in enumerate(pair)}
            name = PREFIX + digest_bytes(save(tensors))[:32]
            if not (self.folder / name / LORA_CONFIG).exists():
                padded.save(self.folder / name, peft_config(padded, rank))
            self.names[parts] = name
        return self.names[parts]


def pad_rank(a: torch.Tensor, b: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns A [R,D] and B [O,R] with zeros up to a rank: vLLM expects the same one of every module."""
    return F.pad(a, (0, 0, 0, rank - len(a))), F.pad(b, (0, rank - len(a)))


def peft_config(factors: LoraFactors, rank: int) -> dict[str, Any]:
    """Returns a configuration of PEFT without patterns, which vLLM does not read."""
    modules = sorted({path.rpartition(".")[2] for path in factors.pairs})
    return {"peft_type": "LORA", "task_type": "CAUSAL_LM", "inference_mode": True, "r": rank,
            "lora_alpha": rank, "bias": "none", "target_modules": modules}  # fmt: skip
