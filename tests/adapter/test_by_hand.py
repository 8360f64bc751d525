"""Figures of adapters, computed once more from their factors alone."""

import copy
import dataclasses

import pytest
import torch

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.adapter.diagnostics import logit_interference
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.initialisation import initialise
from o3_lightning.adapter.injection import injected, lora_factors
from o3_lightning.adapter.training import FitTask, train_adapter
from o3_lightning.models.lora import LoraFactors
from o3_lightning.objectives.config import ForgetObjective, ObjectiveConfig

LAYERS = 2
CONFIG = AdapterConfig(rank=2, alpha=4.0, epochs=1, batch_size=8, learning_rate=1e-2)
SCALINGS = {"first": 6.0, "second": 1.0}


@pytest.fixture
def history(tiny_base):
    """Two random adapters of different scaling on every projection."""
    random = torch.Generator().manual_seed(4)
    shapes = {
        name: module.weight.shape
        for name, module in tiny_base.model.named_modules()
        if name.endswith("_proj")
    }

    def draw():
        return {
            name: (torch.randn(2, wide, generator=random), 0.1 * torch.randn(out, 2, generator=random))
            for name, (out, wide) in shapes.items()
        }

    return AdapterHistory.of({id: LoraFactors.uniform(draw(), scaling) for id, scaling in SCALINGS.items()})


@pytest.mark.parametrize("against", ["all", "last"])
@pytest.mark.parametrize("side", ["input", "output", "both"])
def test_the_penalty_is_summed_over_a_layers_modules_and_requests(
    side, against, history, tiny_base, tiny_request, make_trainer
):
    config = dataclasses.replace(
        CONFIG,
        mode="cumulative",
        penalty_side=side,
        penalty_against=against,
        penalty_coefficient=0.3,
        alpha=2.0,
    )
    trained = train_adapter(
        FitTask(tiny_base, tiny_request, history, config, ObjectiveConfig(), make_trainer(1), 0)
    )
    stacks = {
        "input": [history.inputs],
        "output": [history.outputs],
        "both": [history.inputs, history.outputs],
    }
    expected = sum(
        float((old.double() @ new[-1].double().T).square().sum())  # it begins where the last one ended
        for modules in stacks[side]
        for new in modules.values()
        for old in (new if against == "all" else new[-1:])
    )
    assert trained.curve[0]["penalty"] == pytest.approx(0.3 * expected / LAYERS, rel=1e-5)


@pytest.mark.parametrize("alpha", [2.0, 8.0])
def test_cumulative_mode_begins_with_the_last_update_whatever_its_scaling(alpha, history, tiny_base):
    config = dataclasses.replace(CONFIG, mode="cumulative", alpha=alpha)
    with injected(tiny_base.model, config, "tiny") as wrapped:
        initialise(wrapped, history, config)
        for path, (a, b) in lora_factors(wrapped).items():
            expected = SCALINGS["second"] * history.outputs[path][1].T @ history.inputs[path][1]
            torch.testing.assert_close(alpha / 2 * b.detach() @ a.detach(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("earlier", [False, True])
def test_noise_has_its_share_of_each_weight_and_stays_in_the_complement(earlier, history, tiny_base):
    config, before = dataclasses.replace(CONFIG, noise=0.5), history if earlier else AdapterHistory()
    with injected(tiny_base.model, config, "tiny") as wrapped:
        initialise(wrapped, before, config)
        for path, (a, b) in lora_factors(wrapped).items():
            weight = tiny_base.model.get_submodule(path).base_layer.weight
            assert float((2 * b @ a).norm() / weight.norm()) == pytest.approx(0.5, rel=1e-4)
            if earlier:
                assert float((history.inputs[path].flatten(0, 1) @ a.T).abs().max()) < 1e-4


def test_interference_is_the_divergence_at_the_last_token_of_each_prompt(history, tiny_base):
    prompts = {"first": ["Where?", "Who wrote the long one?", "A"], "second": ["What is it?"]}
    found = logit_interference(tiny_base, history, prompts, batch_size=2)
    for place, scaling in enumerate(SCALINGS.values()):
        changed = copy.deepcopy(tiny_base.model)
        modules = dict(changed.named_modules())
        for path, inputs in history.inputs.items():
            modules[path].weight += scaling * history.outputs[path][place].T @ inputs[place]
        for row, asked in enumerate(prompts.values()):
            divergences = []
            for prompt in asked:
                text = tiny_base.template.format(prompt)
                ids = torch.tensor([tiny_base.tokenizer(text)["input_ids"]])
                before, after = (
                    model(input_ids=ids).logits[0, -1].double().log_softmax(-1)
                    for model in (tiny_base.model, changed)
                )
                divergences.append(float((before.exp() * (before - after)).sum()))
            assert found[row][place] == pytest.approx(sum(divergences) / len(asked), rel=1e-3)


def test_rmu_steers_the_middle_layer_unless_another_is_named(tiny_base, tiny_request, make_trainer):
    losses = {}
    for layer in (None, 1, 2):
        objective = ObjectiveConfig(ForgetObjective("rmu", parameters={"layer": layer}))
        trained = train_adapter(
            FitTask(tiny_base, tiny_request, AdapterHistory(), CONFIG, objective, make_trainer(1), 0)
        )
        losses[layer] = trained.metrics["first_loss"]
    assert losses[None] == losses[1] != losses[2]
