"""Times the gate on the CPU: a batch against single calls, and twenty requests against one.

Run it on a quiet machine with `python -m benchmarks.gate.speed [threads]`; it needs no files. Detection
is left out (the weights are given), so the figures are those of the gated layers alone. Each figure is the
smallest of several runs, which other work on the machine disturbs least.
"""

import json
import sys
import timeit

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from o3_lightning.data.templates import template_for
from o3_lightning.gating.model import GatedModel
from o3_lightning.models.base import BaseModel
from o3_lightning.models.lora import LoraFactors

WIDTH, LAYERS, RANK, ROWS, NEW_TOKENS, REPEATS = 192, 4, 8, 8, 16, 4


class NoDetectors:
    """Detectors whose weights are never asked for."""

    def __init__(self, count):
        self.ids = tuple(f"r{number}" for number in range(count))


def build(count, detectors=None):
    """A gated model of the size of the embedded base, with some requests named r0, r1, ..."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=4, bos_token_id=1, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, **{f"w{place}": place for place in range(3, 1024)}}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")
    base = BaseModel(model, tokenizer, template_for(tokenizer, "plain"), "bench", "0", 512)
    linears = {
        name: layer for name, layer in model.model.named_modules() if isinstance(layer, torch.nn.Linear)
    }
    adapters = {}
    for number in range(count):
        factors = {
            f"model.{name}": (
                torch.randn(RANK, layer.in_features),
                torch.randn(layer.out_features, RANK) * 0.01,
            )
            for name, layer in linears.items()
        }
        adapters[f"r{number}"] = LoraFactors.uniform(factors)
    return GatedModel(base, detectors or NoDetectors(count), adapters)


def fastest(action):
    """The smallest time in seconds of several runs."""
    return min(timeit.repeat(action, number=1, repeat=REPEATS))


def time_batch(gated, weights):
    """Seconds of one batch and of single calls, generating the same tokens."""
    ids = torch.randint(3, 1024, (ROWS, 24))
    options = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}

    def single():
        for row in range(ROWS):
            gated.generate(input_ids=ids[row : row + 1], weights=weights[row : row + 1], **options)

    return fastest(lambda: gated.generate(input_ids=ids, weights=weights, **options)), fastest(single)


def main():
    """Prints the figures as JSON."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    mixed = torch.zeros(ROWS, 20)
    mixed[torch.arange(6), torch.arange(6)] = torch.linspace(0.2, 1.0, 6)
    twenty, one = build(20), build(1)
    batch, single = time_batch(twenty, mixed)
    typical = torch.zeros(ROWS, 20)
    typical[:4, 0] = 1.0
    at_one, _ = time_batch(one, typical[:, :1])
    at_twenty, _ = time_batch(twenty, typical)
    spread, _ = time_batch(twenty, torch.full((ROWS, 20), 0.5))
    with one.disabled():
        base, _ = time_batch(one, typical[:, :1])
    figures = {
        "batch_of_8_ms": batch * 1000,
        "eight_single_calls_ms": single * 1000,
        "batch_speed_up": single / batch,
        "base_model_ms": base * 1000,
        "one_request_ms": at_one * 1000,
        "twenty_requests_same_prompts_ms": at_twenty * 1000,
        "twenty_over_one": at_twenty / at_one,
        "twenty_all_active_ms": spread * 1000,
        "twenty_all_active_over_one": spread / at_one,
    }
    sys.stdout.write(json.dumps({name: round(value, 2) for name, value in figures.items()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
