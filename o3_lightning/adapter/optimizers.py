"""The optimizers of an adapter: AdamW, and Sophia for second-order unlearning."""

import importlib
import importlib.util
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.common.errors import InputError


def make_optimizer(parameters: Iterable[nn.Parameter], config: AdapterConfig) -> torch.optim.Optimizer:
    """Returns the configured optimizer; InputError if its package is missing."""
    options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **options)
    if importlib.util.find_spec("pytorch_optimizer") is None:
        message = "'sophia' needs the package pytorch-optimizer; try: pip install pytorch-optimizer"
        raise InputError(message, field="adapter.optimizer")
    optimizer: torch.optim.Optimizer = sophia(list(parameters), options)
    return optimizer


def sophia(parameters: list[nn.Parameter], options: dict[str, Any]) -> Any:
    """Returns Sophia with squared gradients as its diagonal curvature, every entry of an update at most 1.

    Source:
        Liu et al. 2023 (Sophia); Jia et al. 2024 (SOUL) for unlearning, where squared gradients stand for the
        Gauss-Newton diagonal. The update is that of pytorch-optimizer's `SophiaH`.
    """
    base: Any = importlib.import_module("pytorch_optimizer").SophiaH

    class Sophia(base):  # type: ignore[misc]
        def step(self, closure: Any = None) -> Any:
            """Computes the loss and takes a step with the curvature of its gradients."""
            with torch.enable_grad():
                loss = None if closure is None else closure()
            owned = [one for group in self.param_groups for one in group["params"]]
            squares = [torch.zeros_like(one) if one.grad is None else one.grad.square() for one in owned]
            super().step(hessian=squares)
            return loss

    return Sophia(parameters, p=1.0, **options)
