"""Adapters of kind "full": what they train is what full fine-tuning of the adapted layers trains."""

import copy
import dataclasses

import pytest
import torch
from peft import PeftModel

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.adapter.history import AdapterHistory
from o3_lightning.adapter.injection import injected
from o3_lightning.adapter.training import FitTask, train_adapter
from o3_lightning.common.errors import InputError
from o3_lightning.models.lora import LoraFactors
from o3_lightning.objectives.config import ForgetObjective, ObjectiveConfig

FULL = AdapterConfig(
    kind="full", mode="cumulative", penalty_coefficient=0.0, learning_rate=1e-3, epochs=3, batch_size=8,
    warmup_fraction=0.0, clip=0.0,
)  # fmt: skip
ASCENT = ObjectiveConfig(ForgetObjective("ga"))


@pytest.fixture
def train(tiny_base, tiny_request, make_trainer):
    def train(history, config=FULL):
        return train_adapter(
            FitTask(tiny_base, tiny_request, history, config, ASCENT, make_trainer(config.epochs), 0)
        )

    return train


def fine_tuned(base, request, trainer):
    """The model after three steps of plain AdamW on the weights of its linear layers, on all rows."""
    model = copy.deepcopy(base.model).eval()
    weights = [parameter for name, parameter in model.named_parameters() if name.endswith("_proj.weight")]
    for weight in weights:
        weight.requires_grad_(True)
    task = FitTask(base, request, AdapterHistory(), FULL, ASCENT, trainer, 0)
    optimizer = torch.optim.AdamW(weights, lr=FULL.learning_rate, weight_decay=0.0)
    for share in (1.0, 1.0, 0.5):  # one step of warm-up, then down to zero
        optimizer.param_groups[0]["lr"] = FULL.learning_rate * share
        (fields,) = task.load_batches()
        tokens = fields["answer"]
        logits = model(tokens["input_ids"], attention_mask=tokens["attention_mask"]).logits[:, :-1]
        labels = tokens["labels"][:, 1:]
        optimizer.zero_grad()
        (-torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())).backward()
        optimizer.step()
    return model


def test_a_full_adapter_is_full_fine_tuning_of_the_linear_layers(
    train, tiny_base, tiny_request, make_trainer, tmp_path
):
    trained = train(AdapterHistory())
    expected = fine_tuned(tiny_base, tiny_request, make_trainer(3))
    before, after = tiny_base.model.state_dict(), expected.state_dict()
    for path in trained.factors.pairs:
        change = after[f"{path}.weight"] - before[f"{path}.weight"]
        torch.testing.assert_close(trained.factors.delta(path), change, rtol=1e-3, atol=1e-5)
        assert bool(change.any())
    assert trained.metrics["trained_parameters"] == sum(
        before[f"{path}.weight"].numel() for path in trained.factors.pairs
    )
    trained.save(tmp_path / "full")
    tokens = torch.tensor([[5, 6, 7, 8]])
    plain = PeftModel.from_pretrained(copy.deepcopy(tiny_base.model), tmp_path / "full")
    torch.testing.assert_close(plain(tokens).logits, expected(tokens).logits, rtol=1e-3, atol=1e-4)
    loaded = LoraFactors.load(tmp_path / "full")
    assert set(loaded.scales.values()) == {1.0}


def test_the_next_request_continues_the_change_of_the_last(train):
    first = train(AdapterHistory())
    history = AdapterHistory.of({"first": first.factors})
    still = train(history, dataclasses.replace(FULL, learning_rate=1e-12, epochs=1))
    for path in first.factors.pairs:
        torch.testing.assert_close(still.factors.delta(path), first.factors.delta(path), rtol=0, atol=1e-6)
    anew = train(history, dataclasses.replace(FULL, mode="per_request"))
    for path in first.factors.pairs:
        torch.testing.assert_close(anew.factors.delta(path), first.factors.delta(path), rtol=0, atol=0)


@pytest.mark.parametrize("change", [{"penalty_coefficient": 0.1}, {"dropout": 0.1}, {"mode": "hard"}])
def test_what_needs_low_rank_is_refused(change):
    with pytest.raises(InputError, match=r"field 'adapter.kind': expected penalty_coefficient 0, dropout 0"):
        dataclasses.replace(FULL, **change)


def test_weights_in_four_bits_are_refused(tiny_base, monkeypatch):
    monkeypatch.setattr("o3_lightning.adapter.injection.is_quantised", lambda model: True)
    with pytest.raises(InputError, match="expected lora"), injected(tiny_base.model, FULL, "tiny"):
        pass
