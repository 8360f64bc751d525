"""Merging puts an adapter into the base weights as PEFT would, and unmerging takes it out to the last bit."""

import copy
import re

import pytest
import torch
from peft import PeftModel

from o3_lightning.common.errors import InputError
from o3_lightning.models.lora import LoraFactors


def logits_of(gated, prompts):
    ids, mask = gated.tokens.pad([gated.tokens.encode(prompt) for prompt in prompts])
    return gated(ids, mask).logits


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture(params=["llama", "gpt2"])
def merged(request, build_gated, gate_kit):
    """A gated model over its own copy of the base, and the architecture's name."""
    return build_gated(request.param, model=copy.deepcopy(gate_kit.model(request.param))), request.param


def test_merged_model_is_the_one_that_peft_merges(merged, adapter_folders, gate_kit):
    gated, architecture = merged
    peft_model = PeftModel.from_pretrained(
        copy.deepcopy(gate_kit.model(architecture)), adapter_folders(architecture)["roses"]
    ).merge_and_unload()
    gated.merge("roses")
    expected = peft_model.state_dict()
    for name, value in gated.base.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-6)


def test_merged_request_acts_on_every_row_once(merged, gate_kit):
    gated, _ = merged
    weights = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.5, 0.0]])
    ids, mask = gated.tokens.pad([gated.tokens.encode(prompt) for prompt in ("who is", "a cat")])
    expected = gated(ids, mask, weights=weights).logits
    gated.merge("roses")
    torch.testing.assert_close(gated(ids, mask, weights=weights).logits, expected, atol=1e-4, rtol=1e-5)
    weights[:, 0] = 0
    torch.testing.assert_close(gated(ids, mask, weights=weights).logits, expected, atol=1e-4, rtol=1e-5)


def test_unmerge_gives_every_bit_back_in_any_order(merged, gate_kit):
    gated, _ = merged
    before = weights_of(gated.base.model)
    gated.merge("roses")
    only_roses = weights_of(gated.base.model)
    gated.unmerge("roses")
    gated.merge("irises")
    gated.merge("roses")
    gated.unmerge("irises")
    after = weights_of(gated.base.model)
    assert all(torch.equal(after[name], value) for name, value in only_roses.items())
    assert not all(torch.equal(after[name], value) for name, value in before.items())
    gated.unmerge("roses")
    after = weights_of(gated.base.model)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_half_precision_weights_come_back_to_the_last_bit(build_gated, gate_kit):
    gated = build_gated(model=copy.deepcopy(gate_kit.model("llama")).bfloat16())
    before = weights_of(gated.base.model)
    gated.merge("roses")
    gated.unmerge("roses")
    after = weights_of(gated.base.model)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_wrong_use_is_refused_and_changes_nothing(build_gated, gate_kit):
    gated = build_gated(model=copy.deepcopy(gate_kit.model("llama")), unadapted=["lilies"])
    for action, name, message in (
        (gated.merge, "lilies", "no adapter to merge"),
        (gated.merge, "tulips", "no request 'tulips' in the gate; there are: roses, irises, lilies"),
        (gated.unmerge, "roses", "is not merged"),
    ):
        with pytest.raises(InputError, match=message):
            action(name)
    gated.merge("roses", reversible=False)
    with pytest.raises(InputError, match="merged already"):
        gated.merge("roses")
    with pytest.raises(InputError, match="merged for good"):
        gated.unmerge("roses")


def test_irreversible_merge_survives_the_undoing_of_a_later_one(build_gated, gate_kit):
    gated = build_gated(model=copy.deepcopy(gate_kit.model("llama")))
    gated.merge("roses", reversible=False)
    kept = weights_of(gated.base.model)
    gated.merge("irises")
    gated.unmerge("irises")
    after = weights_of(gated.base.model)
    assert all(torch.equal(after[name], value) for name, value in kept.items())


def test_irreversible_merge_after_a_reversible_one_survives_its_undoing(build_gated, gate_kit):
    gated, plain = (build_gated(model=copy.deepcopy(gate_kit.model("llama"))) for _ in range(2))
    gated.merge("irises")
    gated.merge("roses", reversible=False)
    gated.unmerge("irises")
    plain.merge("roses")
    expected = plain.base.model.state_dict()
    for name, value in gated.base.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-6)


def test_shared_weight_is_refused(build_gated, gate_kit):
    model = copy.deepcopy(gate_kit.model("llama"))
    first, second = (layer.self_attn.o_proj for layer in model.model.layers)
    second.weight = first.weight
    gated = build_gated(model=model)
    before = weights_of(model)
    with pytest.raises(InputError, match="shared with another layer"):
        gated.merge("roses")
    after = weights_of(model)
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize(("dtype", "warned"), [(torch.bfloat16, True), (torch.float32, False)])
def test_rounding_that_loses_part_of_the_update_is_measured(
    build_gated, gate_kit, adapter_folders, caplog, dtype, warned
):
    model = copy.deepcopy(gate_kit.model("llama")).to(dtype)
    for parameter in model.parameters():
        parameter.data.mul_(256)  # the update is small beside such weights
    before = weights_of(model)
    build_gated("llama", model=model).merge("roses")
    roses, lost, whole = LoraFactors.load(adapter_folders("llama")["roses"]), 0.0, 0.0
    for path in roses.pairs:
        wanted, name = roses.delta(path), f"{path}.weight"
        got = model.state_dict()[name].float() - before[name].float()
        lost, whole = lost + float((got - wanted).square().sum()), whole + float(wanted.square().sum())
    said = re.search(r"lost (\d+) % of the adapter's update to rounding in bfloat16", caplog.text)
    assert (said is not None) == warned
    if said is not None:
        assert float(said[1]) == pytest.approx(100 * (lost / whole) ** 0.5, abs=1)
