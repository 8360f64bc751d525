"""Updates: exact against float64, equal to PEFT's "cat", unlike its "linear", and possible to take back."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from o3_lightning.common.errors import InputError
from o3_lightning.models.lora import LoraFactors
from o3_lightning.release.update import applied, apply, release_update, shared_part


def adapter(seed, rank=4, out=12, width=20):
    generator = torch.Generator().manual_seed(seed)
    factors = {
        "m": (torch.randn(rank, width, generator=generator), torch.randn(out, rank, generator=generator))
    }
    return LoraFactors.uniform(factors, 2.0)


def model(seed=0, out=12, width=20):
    torch.manual_seed(seed)
    return nn.ModuleDict({"m": nn.Linear(width, out, bias=False)})


def delta(found, sign=1.0):
    return sign * found.delta("m", torch.float64)


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


def test_the_new_weight_is_float64s_to_a_millionth():
    net, forget, retain = model(), adapter(1), adapter(2, rank=3)
    before = net["m"].weight.detach().double()
    apply(net, release_update(forget, retain, "naive", 1.5, 0.25))
    expected = before - 1.5 * delta(forget) + 0.25 * delta(retain)
    assert relative(net["m"].weight.detach().double(), expected) < 1e-6
    assert relative(delta(release_update(forget, retain, "naive", 1.5, 0.25)), expected - before) < 1e-6


def test_it_is_pefts_cat_and_pefts_linear_is_another_matrix():
    net = model()
    wrapped = get_peft_model(net, LoraConfig(r=4, lora_alpha=8, target_modules=["m"]), adapter_name="one")
    wrapped.add_adapter("two", LoraConfig(r=4, lora_alpha=8, target_modules=["m"]))
    layer = wrapped.base_model.model["m"]
    found = {name: adapter(seed) for name, seed in (("one", 1), ("two", 2))}
    with torch.no_grad():
        for name, factors in found.items():
            layer.lora_A[name].weight.copy_(factors.pairs["m"][0])
            layer.lora_B[name].weight.copy_(factors.pairs["m"][1])
    wrapped.add_weighted_adapter(["one", "two"], [1.0, -0.5], "cat", combination_type="cat")
    wrapped.add_weighted_adapter(["one", "two"], [1.0, -0.5], "linear", combination_type="linear")
    ours = delta(LoraFactors.stacked([found["one"], found["two"].scaled(-0.5)]))
    assert relative(layer.get_delta_weight("cat").double(), ours) < 1e-6
    assert relative(layer.get_delta_weight("linear").double(), ours) > 0.5


def test_taking_an_update_back_gives_the_weights_to_a_millionth_and_the_context_to_the_bit():
    net, update = model(), release_update(adapter(1), None, "naive", 0.05, 0.0)  # as long as the weight
    before = net["m"].weight.detach().clone()
    with pytest.raises(KeyError), applied(net, update):
        net["missing"]
    with applied(net, update):
        assert relative(net["m"].weight.detach(), before) > 0.5
    assert torch.equal(net["m"].weight, before)
    apply(net, update)
    apply(net, update, sign=-1)
    assert relative(net["m"].weight.detach(), before) < 1e-6


def test_stacked_updates_are_their_sum():
    one, two = (release_update(adapter(seed), None, "naive", 1.0, 0.0) for seed in (1, 2))
    assert relative(delta(LoraFactors.stacked([one, two])), -delta(adapter(1)) - delta(adapter(2))) < 1e-6


def test_the_shared_part_is_the_projection_on_the_bisector():
    forget, retain = adapter(1), adapter(2)
    one, two = delta(forget).flatten(), delta(retain).flatten()
    bisector = one / one.norm() + two / two.norm()
    expected = (one @ bisector) / (bisector @ bisector) * bisector
    of_forget, of_retain = shared_part(forget, retain, "m")
    assert relative(of_forget * one + of_retain * two, expected) < 1e-9
    taken = delta(release_update(forget, retain, "ext_sub", 3.0, 0.0)).flatten()
    assert relative(taken, -3.0 * (one - expected)) < 1e-6
    assert abs(float(taken @ bisector)) < 1e-4 * float(taken.norm() * bisector.norm())


def test_an_adapter_that_equals_the_retain_adapter_is_not_subtracted_at_all():
    taken = delta(release_update(adapter(1), adapter(1), "ext_sub", 3.0, 0.0))
    assert float(taken.norm()) < 1e-5 * float(delta(adapter(1)).norm())


def test_an_opposite_adapter_shares_nothing():
    assert shared_part(adapter(1), adapter(1).scaled(-1.0), "m") == (0.0, 0.0)


def test_an_update_for_another_model_is_refused():
    update = release_update(adapter(1), None, "naive", 2.0, 0.0)
    with pytest.raises(InputError, match="of shape"):
        apply(model(out=5), update)
    with pytest.raises(InputError, match="no weight to change"):
        apply(nn.ModuleDict({"other": nn.Linear(2, 2)}), update)
