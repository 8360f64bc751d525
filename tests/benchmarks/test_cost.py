"""What the gate costs beside its base model: counted by torch, and by hand."""

import torch

from benchmarks.cost import cost
from o3_lightning.gating.model import GatedModel
from o3_lightning.models.lora import LoraFactors


def test_costs_are_those_of_the_layers(tiny_base, remembering_encoder):
    path = next(name for name, layer in tiny_base.model.named_modules() if name.endswith("q_proj"))
    wide = tiny_base.model.get_submodule(path).weight.shape[1]
    factors = LoraFactors.uniform({path: (torch.ones(2, wide), torch.ones(wide, 2))})

    class Detectors:
        ids = ("a",)

        def weights(self, prompts):
            torch.ones(3, 5) @ torch.ones(5, 7)
            return torch.ones(len(prompts), 1, dtype=torch.float64)

    model = GatedModel(tiny_base, Detectors(), {"a": factors})
    prompts = ["Where is a?", "Where is that?"]
    found = cost(model, remembering_encoder, {"a": factors}, prompts)
    tokens = [len(model.tokens.encode(prompt)) for prompt in prompts]
    assert found["flops"]["adapter"] == 2 * sum(tokens) / 2 * 4 * wide
    assert found["flops"]["detectors"] == 2 * 3 * 5 * 7
    linear = sum(
        layer.weight.numel() for layer in tiny_base.model.modules() if isinstance(layer, torch.nn.Linear)
    )
    assert (
        found["flops"]["base"] >= 2 * sum(tokens) / 2 * linear * 0.5
    )  # the head may see the last token alone
    assert found["flops"]["overhead"] > 0
    assert found["bytes"]["adapters"] == {"a": 4 * 4 * wide}
    assert found["bytes"]["base"] == 4 * sum(each.numel() for each in tiny_base.model.parameters())
