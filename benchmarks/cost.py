"""Storage and floating-point operations of the gate beside its base model, on a finished run.

Usage:
    python -m benchmarks.cost RESULTS RUN [RUN ...]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from o3_lightning.commands.common import open_gated_model, read_run
from o3_lightning.common.environment import describe_environment
from o3_lightning.common.files import write_json
from o3_lightning.data.stream import load_stream
from o3_lightning.detector.encoder import Encoder, load_configured_encoder
from o3_lightning.gating.model import GatedModel
from o3_lightning.models.lora import LoraFactors
from o3_lightning.store.store import Store
from o3_lightning.training.run_folder import RunFolder

PROMPTS = 8


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Returns the bytes of parameters or factors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def cost(
    model: GatedModel, encoder: Encoder, adapters: Mapping[str, LoraFactors], prompts: Sequence[str]
) -> dict[str, Any]:
    """Returns the cost of a gated model with at least one adapter.

    Returns:
        `flops` a prompt, mean: one forward pass of the base model (`base`), of the detectors (`detectors`,
        encoder, spans and readings included) and of the largest adapter (`adapter`, 2 T R (D + O) a module),
        and `overhead`, the last two over the first; `bytes` of the base model, the encoder, and the adapters.
    """
    base, tokens = model.base.model, 0
    with torch.no_grad(), FlopCounterMode(display=False) as plain:
        for prompt in prompts:
            ids = torch.tensor([model.tokens.encode(prompt)], device=base.device)
            tokens += ids.shape[1]
            base(input_ids=ids)
    with torch.no_grad(), FlopCounterMode(display=False) as gate:
        for prompt in prompts:
            model.weights([prompt])
    factors = {
        name: [factor for pair in each.pairs.values() for factor in pair] for name, each in adapters.items()
    }
    largest = max(sum(factor.numel() for factor in each) for each in factors.values())
    flops = {
        "base": plain.get_total_flops() / len(prompts),
        "detectors": gate.get_total_flops() / len(prompts),
        "adapter": 2 * tokens * largest / len(prompts),
    }
    return {
        "flops": {**flops, "overhead": (flops["detectors"] + flops["adapter"]) / flops["base"]},
        "bytes": {
            "base": bytes_of(base.parameters()),
            "encoder": bytes_of(encoder.model.parameters()),
            "adapters": {name: bytes_of(each) for name, each in factors.items()},
        },
    }


def main() -> None:
    """Writes the costs of some runs."""
    results, *runs = sys.argv[1:]
    found = {}
    for run in runs:
        config, _, _ = read_run("ask", ["--config", str(Path(run) / "config.yaml")])
        stream = load_stream(config.data, config.seed)
        prompts = [row.prompt for request in stream.requests for row in request.rows][:PROMPTS]
        model = open_gated_model(config)
        store = Store.open(RunFolder(config.folder).store)
        adapters = {name: LoraFactors.load(store.adapter_folder(name)) for name in model.ids}
        found[config.name] = cost(model, load_configured_encoder(config.detector), adapters, prompts)
    write_json(Path(results), {"environment": describe_environment(), "runs": found})


if __name__ == "__main__":
    main()
