"""LoRA factors: read as PEFT reads them, written so that PEFT reads them, everything else refused by name."""

import copy
import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from o3_lightning.common.errors import StoreError
from o3_lightning.models.lora import LoraFactors

LAYER = "model.layers.0.self_attn.q_proj"


def edit_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "options",
    [{}, {"use_rslora": True}, {"lora_alpha": 3}, {"alpha_pattern": {f"^{LAYER}": 7}},
     {"alpha_pattern": {"q_proj": 5}, "rank_pattern": {"q_proj": 2}}],
    ids=["plain", "rank_stabilised", "alpha", "anchored", "patterns"],
)  # fmt: skip
def test_delta_of_every_layer_is_that_of_peft(tmp_path, gate_kit, options):
    folder = gate_kit.adapter(tmp_path / "a", **options)
    peft_model = PeftModel.from_pretrained(copy.deepcopy(gate_kit.model("llama")), folder)
    factors = LoraFactors.load(folder).folded()
    assert len(factors) == 14
    for module, (a, b) in factors.items():
        layer = peft_model.base_model.model.get_submodule(module)
        torch.testing.assert_close(b @ a, layer.get_delta_weight("default"), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "expected a LoRA adapter"),
        ({"use_dora": True}, "field 'use_dora'"),
        ({"modules_to_save": ["lm_head"]}, "field 'modules_to_save'"),
        ({"lora_alpha": "big"}, "field 'lora_alpha'"),
        ({"alpha_pattern": {"(a+)+$": 2}}, "field 'alpha_pattern'"),
    ],
)
def test_other_adapters_are_refused_by_field(tmp_path, gate_kit, changes, message):
    folder = gate_kit.adapter(tmp_path / "a")
    edit_config(folder, **changes)
    with pytest.raises(StoreError, match=message):
        LoraFactors.load(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_configuration_that_is_none_is_refused(tmp_path, gate_kit, text):
    folder = gate_kit.adapter(tmp_path / "a")
    (folder / "adapter_config.json").write_text(text)
    with pytest.raises(
        StoreError, match=r"adapter_config.json: (is not JSON|expected a JSON object|expected a LoRA)"
    ):
        LoraFactors.load(folder)


@pytest.mark.parametrize("kind", ["nan", "lone", "rank", "key", "vector", "cut", "missing"])
def test_damaged_tensors_are_refused_by_name(tmp_path, gate_kit, kind):
    folder = gate_kit.adapter(tmp_path / "a")
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    key = f"base_model.model.{LAYER}.lora_A.weight"
    changes = {
        "nan": lambda: tensors[key].fill_(float("nan")),
        "lone": lambda: tensors.pop(key),
        "rank": lambda: tensors.update({key: tensors[key][:2].clone()}),
        "key": lambda: tensors.update({key.replace("lora_A", "lora_C"): torch.ones(1, 1)}),
        "vector": lambda: tensors.update({key: torch.ones(3)}),
    }
    if kind in changes:
        changes[kind]()
        save_file(tensors, path)
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        path.unlink()
    with pytest.raises(StoreError, match=r"adapter_model\.safetensors"):
        LoraFactors.load(folder)


def test_a_stack_of_other_ranks_is_saved_as_an_adapter_that_peft_loads(tmp_path, gate_kit):
    options = [{}, {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 5}}]
    parts = [LoraFactors.load(gate_kit.adapter(tmp_path / str(i), **each)) for i, each in enumerate(options)]
    stack = LoraFactors.stacked([parts[0], parts[1].scaled(-0.5)])
    stack.save(tmp_path / "stack")
    peft_model = PeftModel.from_pretrained(copy.deepcopy(gate_kit.model("llama")), tmp_path / "stack")
    again = LoraFactors.load(tmp_path / "stack")
    assert again.scales == stack.scales
    for module in stack.pairs:
        expected = parts[0].delta(module) - 0.5 * parts[1].delta(module)
        layer = peft_model.base_model.model.get_submodule(module)
        torch.testing.assert_close(layer.get_delta_weight("default"), expected, atol=1e-6, rtol=1e-5)
        assert all(map(torch.equal, again.pairs[module], stack.pairs[module]))
