"""Which layers are adapted, by architecture, and what is refused before any training."""

import logging

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.adapter.injection import injected, lora_factors
from o3_lightning.adapter.targets import choose_targets
from o3_lightning.common.errors import InputError

SMALL = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES = SMALL | {"intermediate_size": 24, "max_position_embeddings": 32, "num_key_value_heads": 2}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "head_dim": 8}


def model_of(kind, **options):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SIZES | options)
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def adapted(model, targets=("all-linear",)):
    with injected(model, AdapterConfig(rank=2, targets=targets), "x") as wrapped:
        return {path.rpartition(".")[2] for path in lora_factors(wrapped)}, len(lora_factors(wrapped))


LLAMA = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
MIXED = ["conv", "full_attention"]


@pytest.mark.parametrize(
    ("kind", "options", "names", "count"),
    [
        ("llama", {}, LLAMA, 14),
        ("phi3", {"pad_token_id": 0}, {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}, 8),
        ("opt", {"ffn_dim": 24, "word_embed_proj_dim": 16},
         {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}, 12),
        ("lfm2", {"layer_types": MIXED},
         {"q_proj", "k_proj", "v_proj", "out_proj", "in_proj", "w1", "w2", "w3"}, 12),
        ("gpt2", {"n_embd": 16, "n_layer": 2, "n_head": 2}, {"c_attn", "c_proj", "c_fc"}, 8),
        ("mamba", {"state_size": 4}, {"in_proj", "x_proj"}, 4),
        ("qwen3_moe", EXPERTS, {"q_proj", "k_proj", "v_proj", "o_proj"}, 8),
        ("mixtral", {"num_local_experts": 2}, {"q_proj", "k_proj", "v_proj", "o_proj"}, 8),
    ],
)  # fmt: skip
def test_every_linear_layer_of_the_blocks_is_adapted_and_no_expert(kind, options, names, count):
    assert adapted(model_of(kind, **options)) == (names, count)


@pytest.mark.parametrize(
    ("kind", "targets", "message"),
    [
        ("llama", ("q_proj", "w_nope"), "'w_nope' matches no linear layer"),
        ("llama", ("embed_tokens",), "'embed_tokens' matches no linear layer"),
        ("mamba", ("out_proj",), "'out_proj' matches no linear layer"),
        ("mamba", ("q_proj",), "there are: in_proj"),
        ("qwen3_moe", ("down_proj",), "matches no linear layer"),
    ],
)
def test_a_target_that_cannot_be_adapted_is_refused_by_name(kind, targets, message):
    model = model_of(kind, **EXPERTS if "moe" in kind else {})
    with pytest.raises(InputError, match=message):
        choose_targets(model, targets)


def test_fused_experts_never_get_an_adapter(monkeypatch):
    model = model_of("qwen3_moe", **EXPERTS)
    monkeypatch.setattr("o3_lightning.adapter.injection.choose_targets", lambda *_: "all-linear")
    with pytest.raises(InputError, match="expected linear layers alone"):
        adapted(model)
    assert not any("lora" in name for name, _ in model.named_modules())


def test_the_share_that_is_adapted_is_logged(caplog):
    with caplog.at_level(logging.INFO, "o3_lightning.adapter.targets"):
        choose_targets(model_of("llama"), ("q_proj",))
        choose_targets(model_of("qwen3_moe", **EXPERTS), ("all-linear",))
    first, second = caplog.messages
    assert "adapting 2 of 14 linear layers" in first
    assert "not adapted: down_proj" in first
    assert "fused experts are not adapted" in second


def test_a_name_that_other_modules_share_becomes_a_path():
    model = torch.nn.ModuleDict(
        {"h": torch.nn.ModuleList([torch.nn.ModuleDict({"up": torch.nn.Linear(2, 2)})])}
    )
    model["up"] = torch.nn.ReLU()
    assert choose_targets(model, ("all-linear",)) == ["h.0.up"]
