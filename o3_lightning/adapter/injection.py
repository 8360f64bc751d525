"""Inserting a fresh LoRA into a base model and removing it again without a trace."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from o3_lightning.adapter.config import FULL, AdapterConfig
from o3_lightning.adapter.targets import choose_targets, ends_with
from o3_lightning.common.errors import InputError
from o3_lightning.models.lora import PEFT_PREFIX


def lora_config(model: nn.Module, config: AdapterConfig, base_id: str) -> LoraConfig:
    """Returns PEFT's configuration of an adapter for a model.

    Raises:
        InputError: a target matches no layer that can be adapted, or kind "full" of a quantised model.
    """
    targets, ranks = choose_targets(model, config.targets), {}
    if config.kind == FULL:
        if is_quantised(model):
            raise InputError("weights in 4 bits cannot be trained; expected lora", field="adapter.kind")
        ranks = {
            f"^{path}": min(layer.weight.shape)
            for path, layer in model.named_modules()
            if any(ends_with(path, target) for target in targets)
        }
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=targets,
        rank_pattern=ranks,
        alpha_pattern=dict(ranks),  # a copy: PEFT adds fused experts to each
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_id,
    )


def is_quantised(model: nn.Module) -> bool:
    """Whether a model was loaded in 4 bits; it must stay on its device."""
    return bool(getattr(model, "is_loaded_in_4bit", False))


@contextmanager
def injected(model: Any, config: AdapterConfig, base_id: str) -> Iterator[PeftModel]:
    """Yields a model with a fresh LoRA and frozen base weights; restores the model afterwards, also on error.

    Restored are modules, `requires_grad`, training mode, devices, gradient checkpointing, and the hooks and
    attributes that PEFT and Transformers leave on modules.

    Raises:
        InputError: a target matches no layer that can be adapted, or PEFT does not adapt it.
    """
    peft_config = lora_config(model, config, base_id)
    state = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    snapshots, device = [Snapshot(module) for module in model.modules()], next(model.parameters()).device
    wrapped: PeftModel | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                wrapped = get_peft_model(model, peft_config)
            except ValueError as error:
                reason = " ".join(str(error).split())
                raise InputError(f"PEFT cannot adapt the model: {reason}", field="adapter.targets") from error
        check_injected(wrapped)
        yield wrapped
    finally:
        if getattr(model, "is_gradient_checkpointing", False):
            model.gradient_checkpointing_disable()
        if wrapped is not None:
            tuner: Any = wrapped.base_model
            tuner.unload()
        for snapshot in snapshots:
            snapshot.restore()
        if next(model.parameters()).device != device:
            model.to(device)
        for parameter, requires_grad in state:
            parameter.requires_grad_(requires_grad)
            parameter.grad = None
        for module, training in modes:
            module.training = training


def check_injected(wrapped: PeftModel) -> None:
    """Refuses an adapter that is more than pairs of matrices, which the gate could not load."""
    trained = {name for name, parameter in wrapped.named_parameters() if parameter.requires_grad}
    pairs = {name for name in trained if ".lora_A." in name or ".lora_B." in name}
    fused = getattr(wrapped.peft_config[wrapped.active_adapter], "target_parameters", None)
    if pairs != trained or not pairs or fused:
        others = ", ".join(sorted(trained - pairs)[:3]) or "fused parameters"
        raise InputError(f"expected linear layers alone, got {others}", field="adapter.targets")


class Snapshot:
    """The hooks and attributes of a module, to remove those that are added later."""

    HOOKS = ("_forward_hooks", "_forward_pre_hooks")

    def __init__(self, module: nn.Module) -> None:
        self.module, self.attributes = module, set(vars(module))
        self.hooks = {name: set(getattr(module, name)) for name in self.HOOKS}

    def restore(self) -> None:
        """Removes the hooks and attributes that were added since."""
        for name, known in self.hooks.items():
            hooks = getattr(self.module, name)
            for added in set(hooks) - known:
                del hooks[added]
        for name in set(vars(self.module)) - self.attributes:
            delattr(self.module, name)


def lora_factors(wrapped: nn.Module) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
    """Returns lora_A [R,D] and lora_B [O,R] by module path of the base model, sorted by path."""
    found: dict[str, dict[str, nn.Parameter]] = {}
    for name, parameter in wrapped.named_parameters():
        for factor in ("lora_A", "lora_B"):
            if f".{factor}." in name:
                path = name.removeprefix(PEFT_PREFIX).split(f".{factor}.")[0]
                found.setdefault(path, {})[factor] = parameter
    return {path: (pair["lora_A"], pair["lora_B"]) for path, pair in sorted(found.items())}


def copy_factors(wrapped: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns the factors as detached float32 copies on the CPU."""
    return {
        path: (a.detach().to("cpu", torch.float32, copy=True), b.detach().to("cpu", torch.float32, copy=True))
        for path, (a, b) in lora_factors(wrapped).items()
    }
