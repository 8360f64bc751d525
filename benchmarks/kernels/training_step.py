"""The penalty's share of a training step: `python -m benchmarks.kernels.training_step`.

A random model of the shape of Llama 3.2 1B with new adapters of all projections is trained on random tokens,
with and without the penalty against earlier adapters, by turns.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.kernels.measure import time_ms
from o3_kernels import orthogonality_penalty, stack_history

HEAD_WIDTH, VOCABULARY = 64, 128256
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WARM_UP = 3


def main(arguments: list[str] | None = None) -> int:
    """Prints the medians in ms with and without the penalty, and its share; keeps them in a file."""
    parser = argparse.ArgumentParser("python -m benchmarks.kernels.training_step", description=__doc__)
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), default="cuda")
    add("--layers", type=int, default=16, help="of the model; default 16")
    add("--width", type=int, default=2048, help=f"of the model, a multiple of {HEAD_WIDTH}; default 2048")
    add("--tokens", type=int, default=512, help="of each of the 4 rows of a batch; default 512")
    add("--rank", type=int, default=8, help="of every adapter; default 8")
    add("--requests", type=int, default=16, help="earlier requests; default 16")
    add("--rounds", type=int, default=20, help="steps of each kind; default 20")
    add("--out", type=Path, help="JSON file")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, f"{parser.prog}: error: --device cuda: torch sees no CUDA device\n")
    results = vars(options) | _measure(options)
    text = json.dumps(results, indent=1, default=str)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")
    sys.stdout.write(text + "\n")
    return 0


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the medians and the share of the penalty."""
    device = torch.device(options.device)
    steps = _steps(options, device)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARM_UP + options.rounds):
        for name, step in steps.items():
            spent = time_ms(step, device)
            if turn >= WARM_UP:
                times[name].append(spent)
    medians = {name: statistics.median(values) for name, values in times.items()}
    share = 1 - medians["without_penalty"] / medians["with_penalty"]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"median_ms": medians, "penalty_share": share, "name": name, "torch": torch.__version__}


def _steps(options: argparse.Namespace, device: torch.device) -> dict[str, Callable[[], Any]]:
    """Returns forward and backward passes of one batch with the penalty and without it."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=options.width,
        intermediate_size=4 * options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=options.width // HEAD_WIDTH,
        num_key_value_heads=max(options.width // HEAD_WIDTH // 4, 1),
        tie_word_embeddings=True,
    )
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    adapters = LoraConfig(r=options.rank, target_modules=PROJECTIONS)
    model = get_peft_model(LlamaForCausalLM(config).to(device, dtype), adapters)
    new = [tensor for name, tensor in model.named_parameters() if "lora_A" in name]
    old = stack_history([torch.randn(options.requests, *t.shape, device=device) for t in new])
    tokens = torch.randint(config.vocab_size, (4, options.tokens), device=device)

    def step(penalised: bool) -> Tensor:
        model.zero_grad()
        loss: Tensor = model(input_ids=tokens, labels=tokens).loss
        if penalised:
            loss = loss + orthogonality_penalty(new, old)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    return {"with_penalty": lambda: step(True), "without_penalty": lambda: step(False)}


if __name__ == "__main__":
    sys.exit(main())
