"""The gradient norm of one example, a membership value: lower = looks more like training data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["gradient_norm", "loss_gradient_norm"]


def gradient_norm(gradients: Iterable[Tensor], order: float = 2.0) -> float:
    """Returns the mean over parameters of the norm of one example's gradient.

    Args:
        gradients: of one example's mean loss, one tensor a parameter, at least one.
        order: of the norm: 1, 2 or infinity.

    Returns:
        A value >= 0.

    Raises:
        ValueError: no gradient, or another order.

    Source:
        Duan et al. 2024; OpenUnlearning `mia/gradnorm.py`: the mean of the parameters' norms, not the norm of
        them all.

    Example:
        >>> gradient_norm([torch.tensor([3.0, 4.0]), torch.tensor([1.0])])
        3.0
    """
    if order not in (1, 2, math.inf):
        raise ValueError(f"expected a norm of order 1, 2 or infinity, got {order}")
    norms = [float(gradient.detach().float().norm(p=order)) for gradient in gradients]
    if not norms:
        raise ValueError("expected the gradient of at least one parameter")
    return sum(norms) / len(norms)


def loss_gradient_norm(loss: Tensor, parameters: Sequence[Tensor], order: float = 2.0) -> float:
    """Returns `gradient_norm` of one example's loss; no parameter's own gradient is touched.

    Args:
        loss: scalar, the mean loss of one example's answer tokens, with its graph.
        parameters: those that the loss may depend on, all with `requires_grad`; those that it does not
            depend on are left out of the mean.
        order: of the norm: 1, 2 or infinity.

    Returns:
        A value >= 0.

    Raises:
        ValueError: the loss depends on no parameter, or another order.

    Source:
        As `gradient_norm`; the reference code zeroes the gradients that a training may still need.

    Example:
        >>> weight = torch.ones(2, requires_grad=True)
        >>> round(loss_gradient_norm(weight.sum(), [weight]), 4)
        1.4142
    """
    gradients = torch.autograd.grad(loss, list(parameters), allow_unused=True)
    return gradient_norm([gradient for gradient in gradients if gradient is not None], order)
