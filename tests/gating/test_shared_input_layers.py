"""Layers that share an input: the same outputs as each alone, in fewer products."""

import weakref

import pytest
import torch
from torch import nn

from o3_lightning.gating import shared_input_layers as module
from o3_lightning.gating.linear import GatedLinear
from o3_lightning.gating.shared_input_layers import find_siblings

WIDE, OUT = 6, {"q_proj": 5, "k_proj": 3, "v_proj": 4}


def make_layers(ranks=(2, 3)):
    torch.manual_seed(0)
    return {
        f"block.attention.{name}": GatedLinear(
            nn.Linear(WIDE, out).requires_grad_(False),
            {number: (torch.randn(rank, WIDE), torch.randn(out, rank)) for number, rank in enumerate(ranks)},
        )
        for name, out in OUT.items()
    }


@pytest.fixture
def calls(monkeypatch):
    """Counts the layers of every shared product."""
    counted, real = [], module.gated_lora_group

    def count(outputs, *rest, **options):
        counted.append(len(outputs))
        return real(outputs, *rest, **options)

    monkeypatch.setattr(module, "gated_lora_group", count)
    return counted


def activate(layers, groups, weights, numbers=(0, 1)):
    for layer in layers.values():
        layer.activate(numbers, weights)
    for group in groups:
        group.activate()


WEIGHTS = torch.tensor([[0.0, 0.0], [1.0, 0.25], [0.0, 0.5], [0.0, 0.0]])


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("copies", [1, 2])
def test_a_group_gives_what_its_layers_give_alone(calls, recorded, copies):
    layers, x = make_layers(), torch.randn(4 * copies, 3, WIDE)
    activate(layers, [], WEIGHTS)
    with torch.set_grad_enabled(recorded):
        alone = [layer(x) for layer in layers.values()]
        groups = find_siblings(layers)
        activate(layers, groups, WEIGHTS)
        assert not calls
        together = [layer(x) for layer in layers.values()]
    assert calls == [3]
    for one, other, layer in zip(alone, together, layers.values(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
        assert torch.equal(other[:copies], layer.inner(x)[:copies])  # rows without weights: bit for bit


def test_the_input_of_a_finished_round_is_let_go():
    layers, x = make_layers(), torch.randn(4, 3, WIDE)
    activate(layers, find_siblings(layers), WEIGHTS)
    first, *others = layers.values()
    first(x)
    kept = weakref.ref(x)
    del x
    for layer in others:
        layer(kept())  # the group holds it for them
    assert kept() is None


def test_another_or_a_changed_input_is_computed_anew(calls):
    layers, x = make_layers(), torch.randn(4, 3, WIDE)
    groups = find_siblings(layers)
    activate(layers, groups, WEIGHTS)
    query, key, _ = layers.values()
    query(x)
    other = x * 2
    changed = key(other)
    assert calls == [3, 3]
    query(x)
    x.mul_(2)
    torch.testing.assert_close(key(x), changed)
    assert calls == [3, 3, 3, 3]


def test_layers_with_other_requests_or_ranks_act_alone(calls):
    layers, x = make_layers(), torch.randn(4, 3, WIDE)
    key = layers["block.attention.k_proj"]
    del key.factors[1]
    groups = find_siblings(layers)
    activate(layers, groups, WEIGHTS)
    torch.testing.assert_close(
        key(x), key.inner(x) + WEIGHTS[:, :1, None] * (x @ key.factors[0][0].T @ key.factors[0][1].T)
    )
    assert not calls
    activate(layers, groups, WEIGHTS, numbers=[0])  # now all three have the same one
    key(x)
    assert calls == [3]


def test_only_children_of_one_parent_that_read_one_input_are_grouped():
    layers = make_layers()
    layers["other.q_proj"] = layers.pop("block.attention.q_proj")
    layers["block.attention.o_proj"] = GatedLinear(nn.Linear(WIDE, 2), {})
    (group,) = find_siblings(layers)
    assert group.layers == [layers["block.attention.k_proj"], layers["block.attention.v_proj"]]
    narrow = {"a.gate_proj": GatedLinear(nn.Linear(4, 2), {}), "a.up_proj": GatedLinear(nn.Linear(5, 2), {})}
    assert find_siblings(narrow) == []
