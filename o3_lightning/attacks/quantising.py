"""Quantisation attack: lower precision may bring back knowledge that unlearning had only suppressed.

Source: Zhang et al. 2024, "Catastrophic failure of LLM unlearning via quantization".
"""

import importlib
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from o3_lightning.gating.model import GatedModel

REAL_BITS = (4, 8)  # supported by bitsandbytes
PACKAGE, GGUF, SIMULATED = "bitsandbytes", "gguf", "simulated"
GGUF_BLOCK = 32  # weights that share a scale in Q4_0 and Q8_0
BLOCK = 64  # weights that share a scale in NF4; on CPU the input width must be a multiple


def choose_form(model: GatedModel, bits: int, quantiser: str) -> str:
    """Returns how a model's layers are stored in fewer bits: "bitsandbytes", "gguf" or "simulated".

    The last one is taken where the package is missing or does not support the layers at `bits` bits.
    """
    form = PACKAGE if quantiser == "auto" else quantiser
    if form == SIMULATED or bits not in REAL_BITS or importlib.util.find_spec(form) is None:
        return SIMULATED
    block = {PACKAGE: BLOCK if bits == min(REAL_BITS) else 1, GGUF: GGUF_BLOCK}[form]
    return form if all(layer.in_features % block == 0 for layer in layers_of(model)) else SIMULATED


def layers_of(model: GatedModel) -> list[nn.Linear]:
    """The linear layers of the base model, without its output layer."""
    base: Any = model.base.model
    head = base.get_output_embeddings()
    return [part for part in base.modules() if type(part) is nn.Linear and part is not head]


@contextmanager
def quantised(model: GatedModel, bits: int, form: str) -> Iterator[None]:
    """Within the context, the base model's linear layers have `bits` bits; adapters keep their precision.

    The output layer and modules other than `nn.Linear` are not changed.

    Args:
        model: restored afterwards.
        bits: 2 to 16; 4 or 8 unless simulated.
        form: "simulated" rounds weights to symmetric levels, one scale per output channel; "gguf" stores them
            as Q4_0 or Q8_0; both compute in the original precision. With "bitsandbytes" that package stores
            and computes: 4 bits as NF4 with quantised scales, 8 bits as LLM.int8().

    Source: Dettmers et al. 2022, "LLM.int8()"; Dettmers et al. 2023, "QLoRA".
    """
    layers = layers_of(model)
    try:
        for layer in layers:  # the gate keeps references to the layers, so only their forward is replaced
            made = stored(layer, bits) if form == PACKAGE else rounded(layer, bits, form)
            layer.__dict__["forward"] = made.forward
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def rounded(layer: nn.Linear, bits: int, form: str) -> nn.Linear:
    """A layer with the rounded weight and the same bias."""
    weight = layer.weight.data
    made = round_weight(weight, bits) if form == SIMULATED else through_gguf(weight, bits)
    copy = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    copy.weight = nn.Parameter(made, requires_grad=False)
    copy.bias = layer.bias
    return copy.eval()


def through_gguf(weight: Tensor, bits: int) -> Tensor:
    """Returns a weight as a GGUF file of 4 or 8 bits (Q4_0, Q8_0) holds it."""
    gguf: Any = importlib.import_module(GGUF)
    kind = gguf.GGMLQuantizationType.Q4_0 if bits == min(REAL_BITS) else gguf.GGMLQuantizationType.Q8_0
    found = gguf.dequantize(gguf.quantize(weight.float().cpu().numpy(), kind), kind)
    return torch.from_numpy(found).to(weight)


def stored(layer: nn.Linear, bits: int) -> nn.Module:
    """A layer of bitsandbytes with the same weight in fewer bits."""
    logging.getLogger(PACKAGE).setLevel(logging.ERROR)  # it warns about every cast to float16
    kind: Any = importlib.import_module(PACKAGE).nn
    wide, out, bias = layer.in_features, layer.out_features, layer.bias is not None
    weight = layer.weight.data.clone()
    if bits == min(REAL_BITS):
        made = kind.Linear4bit(wide, out, bias, compute_dtype=weight.dtype, quant_type="nf4")
        made.weight = kind.Params4bit(
            weight, requires_grad=False, quant_type="nf4", compress_statistics=True, module=made
        )
    else:
        made = kind.Linear8bitLt(wide, out, bias, has_fp16_weights=False)
        made.weight = kind.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    if bias:
        made.bias = layer.bias
    quantised_layer: nn.Module = made.to(layer.weight.device).eval()
    return quantised_layer


def round_weight(weight: Tensor, bits: int) -> Tensor:
    """Returns a weight [O,D] rounded to `2^bits - 1` levels a row, symmetric about 0.

    Example:
        >>> [round(value, 4) for value in round_weight(torch.tensor([[1.0, 0.4, -0.6]]), 2)[0].tolist()]
        [1.0, 0.0, -1.0]
    """
    levels = 2 ** (bits - 1) - 1
    scale = weight.float().abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / levels
    rounded: Tensor = (weight.float() / scale).round().clamp(-levels, levels) * scale
    return rounded.to(weight.dtype)
