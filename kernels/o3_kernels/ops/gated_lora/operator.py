"""The public calls `gated_lora` and `gated_lora_group`: checks, choice of implementation, gradient."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from o3_kernels.checks import check_devices, check_floating, check_shape, runs_on_triton
from o3_kernels.ops.gated_lora.vectorised import add_gated_lora


def gated_lora(
    y: Tensor,
    x: Tensor,
    a: Tensor,
    b: Tensor,
    weights: Tensor,
    *,
    live: Tensor | None = None,
    inplace: bool = False,
) -> Tensor:
    """Returns y + ((x a^T) * weights[:, None, :]) b^T: the adapters of all requests in two products.

    A row whose weights are all zero costs nothing and keeps the bits of y. All tensors have gradients.

    Args:
        y: [B,T,O], output of the base layer.
        x: [B,T,D], its input.
        a: [S,D], the down-projections of all requests, concatenated.
        b: [O,S], the up-projections, concatenated, scaled by alpha / rank.
        weights: [B,S], weight of each row for each stacked rank, any floating dtype.
        live: `live_rows(weights)`, if already computed; avoids a search on a CPU.
        inplace: write into y and return it; not allowed while gradients are recorded.

    Returns:
        [B,T,O] of the dtype of y.

    Raises:
        ValueError: shapes do not match, devices differ, live is not [rows] of int64, or inplace is set while
            gradients are recorded.
        TypeError: y, x, a and b do not have the same floating dtype, or weights is not floating.

    Example:
        >>> y, x = torch.zeros(2, 1, 2), torch.ones(2, 1, 3)
        >>> a, b = torch.ones(1, 3), torch.tensor([[1.0], [2.0]])
        >>> gated_lora(y, x, a, b, torch.tensor([[0.5], [0.0]])).squeeze(1).tolist()
        [[1.5, 3.0], [0.0, 0.0]]
    """
    return gated_lora_group([y], x, a, [b], weights, live=live, inplace=inplace)[0]


def gated_lora_group(
    outputs: Sequence[Tensor],
    x: Tensor,
    a: Tensor,
    b: Sequence[Tensor],
    weights: Tensor,
    *,
    live: Tensor | None = None,
    inplace: bool = False,
) -> list[Tensor]:
    """Returns `gated_lora` of J layers with the same input, such as query, key and value, in shared launches.

    Args:
        outputs: J tensors [B,T,O_j], outputs of the base layers.
        x: [B,T,D], their input.
        a: [J*S,D], the stacked down-projections of all layers, concatenated.
        b: J tensors [O_j,S].
        weights: [B,S], the same for all layers.
        live: as in `gated_lora`.
        inplace: as in `gated_lora`, for all outputs.

    Raises:
        ValueError: as in `gated_lora`, or J is 0 or differs between outputs and b.
        TypeError: as in `gated_lora`.
    """
    outputs, b = list(outputs), list(b)
    _check(outputs, x, a, b, weights)
    if live is not None and (live.dim() != 1 or live.dtype != torch.int64):
        raise ValueError(f"live must be [rows] of int64, but it is {list(live.shape)} of {live.dtype}")
    recorded = (*outputs, x, a, *b, weights)
    recording = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in recorded)
    if inplace and recording:
        raise ValueError("inplace=True needs torch.no_grad(): a gradient is being recorded")
    if not recording and not torch.compiler.is_compiling():
        # a registered operator has an overhead per tensor, which matters for small batches
        return _run(outputs, x, a, b, weights, live, inplace=inplace)
    if not inplace:
        return list(_gated_lora(outputs, x, a, b, weights))
    _gated_lora_(outputs, x, a, b, weights)
    return outputs


def _fits(outputs: list[Tensor], x: Tensor, a: Tensor, b: list[Tensor], weights: Tensor) -> bool:
    """Whether the arguments are valid; `_check` alone would take as long as a launch."""
    J = len(b)
    if not J or len(outputs) != J or x.dim() != 3 or weights.dim() != 2:
        return False
    (B, T, D), (rows, S), dtype, device = x.shape, weights.shape, x.dtype, x.device
    one_kind = a.dtype == dtype and a.device == device == weights.device and dtype.is_floating_point
    return (
        (one_kind and weights.dtype.is_floating_point)
        and (rows == B and a.shape == (J * S, D))
        and all(
            b_j.dim() == 2
            and b_j.shape[1] == S
            and y.shape == (B, T, b_j.shape[0])
            and (y.dtype == dtype == b_j.dtype and y.device == device == b_j.device)
            for y, b_j in zip(outputs, b, strict=True)
        )
    )


def _check(outputs: list[Tensor], x: Tensor, a: Tensor, b: list[Tensor], weights: Tensor) -> None:
    """Raises the errors of `gated_lora_group` about shapes, dtypes and devices."""
    if _fits(outputs, x, a, b, weights):
        return
    if len(outputs) != len(b) or not outputs:
        raise ValueError(f"every output needs its b, but {len(outputs)} outputs and {len(b)} b came")
    check_shape("x", x, (None, None, None), "[B,T,D]")
    check_shape("weights", weights, (x.shape[0], None), "[B,S]")
    S = weights.shape[1]
    check_shape("a", a, (len(b) * S, x.shape[2]), "[S,D]" if len(b) == 1 else "[J*S,D]")
    for y, b_j in zip(outputs, b, strict=True):
        check_shape("b", b_j, (None, S), "[O,S]")
        check_shape("y", y, (*x.shape[:2], b_j.shape[0]), "[B,T,O]")
    check_floating(x=x, weights=weights)
    for tensor in (*outputs, a, *b):
        if tensor.dtype != x.dtype:
            raise TypeError(f"y, x, a and b must have one dtype, but {x.dtype} and {tensor.dtype} came")
    check_devices([x, weights, a, *outputs, *b])


def _run(
    outputs: Sequence[Tensor],
    x: Tensor,
    a: Tensor,
    b: Sequence[Tensor],
    weights: Tensor,
    live: Tensor | None = None,
    *,
    inplace: bool = False,
) -> list[Tensor]:
    """Adds the updates with Triton if possible, in place or into new tensors."""
    if x.device.type == "cuda" and runs_on_triton([x]):
        from o3_kernels.ops.gated_lora.launch import launch_gated_lora

        results = None if inplace else _gated_lora_fake(outputs)
        launch_gated_lora(outputs, x, a, b, weights, results=results)
        return list(outputs) if results is None else results
    written = list(outputs) if inplace else [y.clone(memory_format=torch.contiguous_format) for y in outputs]
    add_gated_lora(written, x, a, b, weights, live)
    return written


@torch.library.custom_op("o3_kernels::gated_lora_", mutates_args=("outputs",))
def _gated_lora_(
    outputs: Sequence[Tensor], x: Tensor, a: Tensor, b: Sequence[Tensor], weights: Tensor
) -> None:
    _run(outputs, x, a, b, weights, inplace=True)


_gated_lora_.register_fake(lambda *_: None)


@torch.library.custom_op("o3_kernels::gated_lora", mutates_args=())
def _gated_lora(
    outputs: Sequence[Tensor], x: Tensor, a: Tensor, b: Sequence[Tensor], weights: Tensor
) -> list[Tensor]:
    return _run(outputs, x, a, b, weights)


@_gated_lora.register_fake
def _gated_lora_fake(outputs: Sequence[Tensor], *_: Any) -> list[Tensor]:
    return [torch.empty_like(output, memory_format=torch.contiguous_format) for output in outputs]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    """Stores the inputs: recomputing the hidden states is cheaper than storing them."""
    outputs, x, a, b, weights = inputs
    ctx.layers = len(outputs)
    ctx.save_for_backward(x, a, weights, *b)


def _backward(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    """Returns the gradients of all five inputs; the weights zero those of x, a and b for inactive rows."""
    x, a, weights, *b = ctx.saved_tensors
    S = weights.shape[1]
    scale = weights[:, None, None, :].to(x.dtype)
    grad_gated = torch.stack([grad @ b_j for grad, b_j in zip(grads, b, strict=True)], 2)
    grad_hidden = (grad_gated * scale).flatten(2)
    hidden = (x @ a.T).view(*x.shape[:2], ctx.layers, S)
    gated = hidden * scale
    grad_x = grad_hidden @ a
    grad_a = grad_hidden.flatten(0, 1).T @ x.flatten(0, 1)
    grad_b = [grad.flatten(0, 1).T @ gated[:, :, j].flatten(0, 1) for j, grad in enumerate(grads)]
    grad_weights = (grad_gated * hidden).sum((1, 2)).to(weights.dtype)
    return list(grads), grad_x, grad_a, grad_b, grad_weights


torch.library.register_autograd("o3_kernels::gated_lora", _backward, setup_context=_setup_context)
